package tuf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"companion/adapters/privatefs"
)

// store keeps what was verified, in two files: everything that belongs together in one, so that no
// crash can mix two manifests, and the floor of versions beside it, so that it survives the loss of
// the other.
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
	Roots     [][]byte  `json:"roots"`
	Timestamp []byte    `json:"timestamp"`
	Snapshot  []byte    `json:"snapshot"`
	Targets   []byte    `json:"targets"`
	CheckedAt time.Time `json:"checkedAt"`

	floor floor
}

// floor holds the highest versions ever verified (M1).
type floor struct {
	Root      int64 `json:"root"`
	Timestamp int64 `json:"timestamp"`
	Snapshot  int64 `json:"snapshot"`
	Targets   int64 `json:"targets"`
}

// above reports whether set is older than the floor in any part.
func (f floor) above(set *trustedmetadata.TrustedMetadata) bool {
	return set.Root.Signed.Version < f.Root || set.Timestamp.Signed.Version < f.Timestamp ||
		set.Snapshot.Signed.Version < f.Snapshot || set.Targets[metadata.TARGETS].Signed.Version < f.Targets
}

// load reads what is kept and verifies all of it again, up from the pinned root. What is truncated or
// does not verify is put aside and counts as absent: the floor still holds. The set is as far as
// verification came; expiry is not looked at.
func (s store) load() (kept, *trustedmetadata.TrustedMetadata, error) {
	set, err := trustedmetadata.New(s.pinned)
	if err != nil {
		return kept{}, nil, fmt.Errorf("reading the pinned root: %w", err)
	}
	set.RefTime = time.Time{} // before any expiry
	k, err := read[kept](s, verifiedFile)
	if err != nil {
		return kept{}, nil, err
	}
	if k.floor, err = read[floor](s, floorFile); err != nil {
		return kept{}, nil, err
	}
	if err := contain(func() error { return k.verify(set) }); err != nil {
		if err := s.quarantine(verifiedFile); err != nil {
			return kept{}, nil, err
		}
		// Verification stopped somewhere: start over from the roots that passed.
		k = kept{Roots: k.Roots[:passed(set, s.pinned)], floor: k.floor}
		if set, err = trustedmetadata.New(s.pinned); err != nil {
			return kept{}, nil, err
		}
		set.RefTime = time.Time{}
		if err := k.verify(set); err != nil {
			return kept{}, nil, err
		}
	}
	return k, set, nil
}

// passed counts the roots after the pinned one that set has accepted.
func passed(set *trustedmetadata.TrustedMetadata, pinned []byte) int {
	first, err := trustedmetadata.New(pinned)
	if err != nil {
		return 0
	}
	return int(set.Root.Signed.Version - first.Root.Signed.Version)
}

func (k *kept) verify(set *trustedmetadata.TrustedMetadata) error {
	for _, root := range k.Roots {
		if _, err := set.UpdateRoot(root); err != nil {
			return err
		}
	}
	if k.Timestamp == nil {
		return nil
	}
	if _, err := set.UpdateTimestamp(k.Timestamp); err != nil {
		return err
	}
	if _, err := set.UpdateSnapshot(k.Snapshot, false); err != nil {
		return err
	}
	_, err := set.UpdateTargets(k.Targets)
	return err
}

// verified returns the metadata for the updater to begin with.
func (k *kept) verified(set *trustedmetadata.TrustedMetadata) map[string][]byte {
	if set.Targets[metadata.TARGETS] == nil {
		return nil
	}
	return map[string][]byte{metadata.TIMESTAMP: k.Timestamp, metadata.SNAPSHOT: k.Snapshot, metadata.TARGETS: k.Targets}
}

func (k *kept) newestRoot(pinned []byte) []byte {
	if len(k.Roots) == 0 {
		return pinned
	}
	return k.Roots[len(k.Roots)-1]
}

// keepRoots adds the fetched roots up to the newest verified one.
func (s store) keepRoots(k *kept, fetched map[int64][]byte, newest int64) error {
	first, err := trustedmetadata.New(s.pinned)
	if err != nil {
		return err
	}
	next := first.Root.Signed.Version + int64(len(k.Roots)) + 1
	if next > newest {
		return nil
	}
	for ; next <= newest; next++ {
		k.Roots = append(k.Roots, fetched[next])
	}
	k.floor.Root = max(k.floor.Root, newest)
	return s.write(*k)
}

// keep writes the manifest that the updater left in scratch, and raises the floor.
func (s store) keep(k kept, scratch string, set *trustedmetadata.TrustedMetadata) error {
	for role, to := range map[string]*[]byte{
		metadata.TIMESTAMP: &k.Timestamp, metadata.SNAPSHOT: &k.Snapshot, metadata.TARGETS: &k.Targets,
	} {
		data, err := os.ReadFile(filepath.Join(scratch, role+".json"))
		if err != nil {
			return fmt.Errorf("reading the verified metadata: %w", err)
		}
		*to = data
	}
	k.floor = floor{
		Root:      set.Root.Signed.Version,
		Timestamp: set.Timestamp.Signed.Version,
		Snapshot:  set.Snapshot.Signed.Version,
		Targets:   set.Targets[metadata.TARGETS].Signed.Version,
	}
	return s.write(k)
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

// read decodes a file; a missing one is the zero value, and so is one that cannot be decoded, which is
// put aside.
func read[T any](s store, name string) (T, error) {
	var v, zero T
	data, err := os.ReadFile(filepath.Join(s.dir, name))
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

// quarantine puts a bad file aside, for a person to look at.
func (s store) quarantine(name string) error {
	path := filepath.Join(s.dir, name)
	if err := os.Rename(path, path+".bad"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("putting %s aside: %w", name, err)
	}
	return nil
}
