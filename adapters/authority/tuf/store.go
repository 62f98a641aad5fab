package tuf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"companion/adapters/privatefs"
)

// store keeps the verified metadata in two files: one manifest with its roots in one file, so that no crash can mix two
// manifests, and the floor of versions in another, so that it survives the loss of the first.
type store struct {
	dir    string
	pinned []byte
}

const (
	verifiedFile = "verified.json"
	floorFile    = "floor.json"
)

// kept is the content of verifiedFile: the chain of roots after the pinned one, and the rest of the
// last verified manifest, byte for byte as signed.
type kept struct {
	Roots [][]byte `json:"roots"`
	// Root is the version of the root that the manifest was verified with. Roots may contain a newer one with other keys:
	// it verifies what is fetched next, and does not invalidate the manifest. Zero means the newest.
	Root      int64     `json:"root,omitempty"`
	Timestamp []byte    `json:"timestamp"`
	Snapshot  []byte    `json:"snapshot"`
	Targets   []byte    `json:"targets"`
	CheckedAt time.Time `json:"checkedAt"`

	floor floor
}

// floor holds the highest versions ever verified (M1), and the keys of the roles at that time.
type floor struct {
	Root      int64             `json:"root"`
	Timestamp int64             `json:"timestamp"`
	Snapshot  int64             `json:"snapshot"`
	Targets   int64             `json:"targets"`
	Keys      map[string]string `json:"keys,omitempty"` // by role; see keysOf
}

// above reports whether set is older than the floor in any part. Versions that were signed with keys that
// the root has since replaced do not count: an attacker who had those keys may have signed any version
// (TUF specification, section 5.3.11). The version of the targets is also one that the snapshot's keys have signed.
func (f floor) above(set *trustedmetadata.TrustedMetadata) bool {
	if set.Root.Signed.Version < f.Root {
		return true
	}
	online := f.holds(set.Root, metadata.TIMESTAMP) && f.holds(set.Root, metadata.SNAPSHOT)
	return online && (set.Timestamp.Signed.Version < f.Timestamp || set.Snapshot.Signed.Version < f.Snapshot ||
		f.holds(set.Root, metadata.TARGETS) && set.Targets[metadata.TARGETS].Signed.Version < f.Targets)
}

// holds reports whether the keys of the role are those of the floor.
func (f floor) holds(root *metadata.Metadata[metadata.RootType], role string) bool {
	keys, ok := f.Keys[role]
	return !ok || keys == keysOf(root, role)
}

// keysOf identifies the keys of a role and their threshold.
func keysOf(root *metadata.Metadata[metadata.RootType], role string) string {
	r := root.Signed.Roles[role]
	if r == nil {
		return ""
	}
	return fmt.Sprint(r.Threshold, " ", strings.Join(slices.Sorted(slices.Values(r.KeyIDs)), " "))
}

// rotated reports whether the timestamp or snapshot keys of two roots differ. If they do, the old metadata is not used to
// check the versions of the new (TUF specification, section 5.3.11).
func rotated(a, b *metadata.Metadata[metadata.RootType]) bool {
	return keysOf(a, metadata.TIMESTAMP) != keysOf(b, metadata.TIMESTAMP) || keysOf(a, metadata.SNAPSHOT) != keysOf(b, metadata.SNAPSHOT)
}

// manifest is the stored metadata, verified again from the pinned root. set holds the part that verified, with the root
// that the manifest was verified with; newest is the newest root. Expiry is not checked.
type manifest struct {
	kept   kept
	set    *trustedmetadata.TrustedMetadata
	newest *metadata.Metadata[metadata.RootType]
}

// complete reports whether all of the manifest is stored.
func (m manifest) complete() bool { return m.set.Targets[metadata.TARGETS] != nil }

// load reads the stored metadata and verifies it again. A file that is truncated or does not verify is renamed and counts
// as absent; the floor still applies.
func (s store) load() (manifest, error) {
	k, err := read[kept](s, verifiedFile)
	if err != nil {
		return manifest{}, err
	}
	if k.floor, err = read[floor](s, floorFile); err != nil {
		return manifest{}, err
	}
	m, passed, err := k.verify(s.pinned)
	if err == nil {
		return m, nil
	}
	if err := s.quarantine(verifiedFile); err != nil {
		return manifest{}, err
	}
	// Verification failed: start again with the roots that verified.
	k = kept{Roots: k.Roots[:passed], floor: k.floor}
	m, _, err = k.verify(s.pinned)
	return m, err
}

// verify verifies k. passed is the number of roots that verified.
func (k kept) verify(pinned []byte) (m manifest, passed int, err error) {
	open := func() (*trustedmetadata.TrustedMetadata, error) {
		set, err := trustedmetadata.New(pinned)
		if err != nil {
			return nil, fmt.Errorf("reading the pinned root: %w", err)
		}
		set.RefTime = time.Time{} // before any expiry
		return set, nil
	}
	err = contain(func() error {
		roots, err := open()
		if err != nil {
			return err
		}
		set, err := open()
		if err != nil {
			return err
		}
		for _, data := range k.Roots {
			root, err := roots.UpdateRoot(data)
			if err != nil {
				return err
			}
			passed++
			if k.Root == 0 || root.Signed.Version <= k.Root {
				if _, err := set.UpdateRoot(data); err != nil {
					return err
				}
			}
		}
		m = manifest{kept: k, set: set, newest: roots.Root}
		if k.Timestamp == nil {
			set.Root = roots.Root
			return nil
		}
		if _, err := set.UpdateTimestamp(k.Timestamp); err != nil {
			return err
		}
		if _, err := set.UpdateSnapshot(k.Snapshot, false); err != nil {
			return err
		}
		_, err = set.UpdateTargets(k.Targets)
		return err
	})
	return m, passed, err
}

// upTo returns k without the roots after root, which the manifest was not verified with.
func (k kept) upTo(root *metadata.Metadata[metadata.RootType]) kept {
	for i, data := range k.Roots {
		if r, err := metadata.Root().FromBytes(data); err == nil && r.Signed.Version > root.Signed.Version {
			k.Roots = k.Roots[:i:i]
			break
		}
	}
	return k
}

// verified returns the metadata for the updater to begin with.
func (m manifest) verified() map[string][]byte {
	if !m.complete() || rotated(m.set.Root, m.newest) {
		return nil
	}
	return map[string][]byte{metadata.TIMESTAMP: m.kept.Timestamp, metadata.SNAPSHOT: m.kept.Snapshot, metadata.TARGETS: m.kept.Targets}
}

func (k *kept) newestRoot(pinned []byte) []byte {
	if len(k.Roots) == 0 {
		return pinned
	}
	return k.Roots[len(k.Roots)-1]
}

// keepRoots stores the fetched roots up to the newest verified one. The stored manifest stays valid.
func (s store) keepRoots(m *manifest, fetched map[int64][]byte, newest *metadata.Metadata[metadata.RootType]) error {
	if newest.Signed.Version <= m.newest.Signed.Version {
		return nil
	}
	k := &m.kept
	if k.Timestamp != nil {
		k.Root = m.set.Root.Signed.Version
	}
	for next := m.newest.Signed.Version + 1; next <= newest.Signed.Version; next++ {
		k.Roots = append(k.Roots, fetched[next])
	}
	m.newest = newest
	k.floor.Root = max(k.floor.Root, newest.Signed.Version)
	return s.write(*k)
}

// keep writes the manifest that the updater left in scratch, and raises the floor.
func (s store) keep(k kept, scratch string, set *trustedmetadata.TrustedMetadata) (kept, error) {
	for role, to := range map[string]*[]byte{
		metadata.TIMESTAMP: &k.Timestamp, metadata.SNAPSHOT: &k.Snapshot, metadata.TARGETS: &k.Targets,
	} {
		data, err := os.ReadFile(filepath.Join(scratch, role+".json"))
		if err != nil {
			return kept{}, fmt.Errorf("reading the verified metadata: %w", err)
		}
		*to = data
	}
	k.Root = set.Root.Signed.Version
	keys := map[string]string{}
	for _, role := range []string{metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS} {
		keys[role] = keysOf(set.Root, role)
	}
	k.floor = floor{
		Keys:      keys,
		Root:      set.Root.Signed.Version,
		Timestamp: set.Timestamp.Signed.Version,
		Snapshot:  set.Snapshot.Signed.Version,
		Targets:   set.Targets[metadata.TARGETS].Signed.Version,
	}
	return k, s.write(k)
}

// write replaces the files, the floor last: after a crash between the two, it is lower than what is
// kept, never higher.
func (s store) write(k kept) error {
	for _, f := range []struct {
		name    string
		content any
	}{{verifiedFile, k}, {floorFile, k.floor}} {
		data, err := json.Marshal(f.content)
		if err != nil {
			return fmt.Errorf("encoding %s: %w", f.name, err)
		}
		if err := privatefs.WriteFile(filepath.Join(s.dir, f.name), data); err != nil {
			return fmt.Errorf("keeping %s: %w", f.name, err)
		}
	}
	return nil
}

// read decodes a file. It returns the zero value for a missing file, and for one that cannot be decoded, which it renames.
func read[T any](s store, name string) (T, error) {
	var v, zero T
	data, err := privatefs.ReadRegular(filepath.Join(s.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return zero, nil
	}
	if err != nil {
		return zero, fmt.Errorf("reading %s: %w", name, err)
	}
	if err := json.Unmarshal(data, &v, json.RejectUnknownMembers(true)); err != nil {
		return zero, s.quarantine(name)
	}
	return v, nil
}

// quarantine renames an invalid file, so that it can be inspected.
func (s store) quarantine(name string) error {
	path := filepath.Join(s.dir, name)
	if err := os.Rename(path, path+".bad"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("putting %s aside: %w", name, err)
	}
	return nil
}
