package catalogue

import (
	"crypto"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"companion/adapters/privatefs"
	"companion/cmd/devhub/place"
)

// Lifetimes of each role's signature. A serving hub signs again long before the shortest ends.
const (
	rootLife      = 10 * 365 * 24 * time.Hour
	targetsLife   = 30 * 24 * time.Hour
	snapshotLife  = 7 * 24 * time.Hour
	timestampLife = 24 * time.Hour
)

var roles = []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP}

// Twist says how signed metadata differs from the correct metadata. The zero Twist is correct; the others produce the
// faults of a hostile or broken hub, with valid signatures.
type Twist struct {
	Expired     bool
	Older       bool // the first version again
	WrongLength bool
	WrongDigest bool
	Outside     bool   // URLs outside the origins
	Base        string // of stored artifacts, instead of the artifact host's
}

// Metadata signs the list as the twist says, and returns the files by name (TUF, consistent
// snapshots) without storing them.
func (c *Catalogue) Metadata(t Twist) (map[string][]byte, error) {
	l, err := c.read()
	if err != nil {
		return nil, err
	}
	return c.sign(l, t)
}

// signLocked signs the next version and stores it, the timestamp last.
func (c *Catalogue) signLocked() error {
	l, err := c.read()
	if err != nil {
		return err
	}
	l.Version++
	files, err := c.sign(l, Twist{})
	if err != nil {
		return err
	}
	if err := c.write(l); err != nil {
		return err
	}
	const last = metadata.TIMESTAMP + ".json"
	for name, data := range files {
		if name == last {
			continue
		}
		if err := privatefs.WriteFile(c.place.Path("manifest", name), data); err != nil {
			return err
		}
	}
	return privatefs.WriteFile(c.place.Path("manifest", last), files[last])
}

func (c *Catalogue) sign(l list, t Twist) (map[string][]byte, error) {
	version := l.Version
	switch {
	case t.Older:
		version = 1 // a serving hub has already signed a second one
	case t.Expired:
		version++ // a client keeps its copy of the same version and does not read the new date
	}
	until := func(life time.Duration) time.Time {
		if t.Expired {
			life = -time.Hour
		}
		return time.Now().UTC().Add(life).Truncate(time.Second)
	}
	targets := metadata.Targets(until(targetsLife))
	targets.Signed.Version = version
	for _, e := range l.Entries {
		file, err := c.targetFile(e, t)
		if err != nil {
			return nil, err
		}
		targets.Signed.Targets[e.path()] = file
	}
	snapshot := metadata.Snapshot(until(snapshotLife))
	snapshot.Signed.Version = version
	snapshot.Signed.Meta["targets.json"] = metadata.MetaFile(version)
	timestamp := metadata.Timestamp(until(timestampLife))
	timestamp.Signed.Version = version
	timestamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(version)

	files := map[string][]byte{}
	var err error
	if files[fmt.Sprintf("%d.targets.json", version)], err = signed(c.place, targets, metadata.TARGETS); err != nil {
		return nil, err
	}
	if files[fmt.Sprintf("%d.snapshot.json", version)], err = signed(c.place, snapshot, metadata.SNAPSHOT); err != nil {
		return nil, err
	}
	files["timestamp.json"], err = signed(c.place, timestamp, metadata.TIMESTAMP)
	return files, err
}

func (c *Catalogue) targetFile(e Entry, t Twist) (*metadata.TargetFiles, error) {
	base := t.Base
	if base == "" {
		base = c.place.ArtifactURL()
	}
	if e.Stored {
		e.Custom.Origins = []string{base + "/artifacts/"}
		e.Custom.URLs = []string{base + "/artifacts/" + e.SHA256}
	}
	e.Custom = withURLs(e.Custom, base)
	if t.Outside {
		for i, u := range e.Custom.URLs {
			e.Custom.URLs[i] = strings.Replace(u, "/artifacts/", "/artifacts-elsewhere/", 1)
		}
	}
	if t.WrongLength {
		e.Length++
	}
	digest, err := hex.DecodeString(e.SHA256)
	if err != nil {
		return nil, fmt.Errorf("reading the digest of %s: %w", e.Custom.Name, err)
	}
	if t.WrongDigest {
		digest[0] ^= 1
	}
	custom, err := json.Marshal(e.Custom)
	if err != nil {
		return nil, fmt.Errorf("describing %s: %w", e.Custom.Name, err)
	}
	raw := json.RawMessage(custom)
	return &metadata.TargetFiles{
		Length: e.Length, Hashes: metadata.Hashes{"sha256": digest}, Custom: &raw,
	}, nil
}

// makeRoot makes one key for each role and the root that a client pins.
func (c *Catalogue) makeRoot() error {
	for _, dir := range []string{"keys", "manifest", "artifacts"} {
		if err := privatefs.EnsureDir(c.place.Path(dir)); err != nil {
			return err
		}
	}
	root := metadata.Root(time.Now().UTC().Add(rootLife).Truncate(time.Second))
	for _, role := range roles {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			return fmt.Errorf("making the %s key: %w", role, err)
		}
		if err := place.WriteKey(c.place.Path("keys", role+".pem"), key); err != nil {
			return err
		}
		public, err := metadata.KeyFromPublicKey(key.Public())
		if err != nil {
			return fmt.Errorf("encoding the %s key: %w", role, err)
		}
		if err := root.Signed.AddKey(public, role); err != nil {
			return fmt.Errorf("adding the %s key: %w", role, err)
		}
	}
	data, err := signed(c.place, root, metadata.ROOT)
	if err != nil {
		return err
	}
	return privatefs.WriteFile(c.place.RootFile(), data)
}

func signed[T metadata.Roles](p *place.Place, m *metadata.Metadata[T], role string) ([]byte, error) {
	key, err := place.ReadKey(p.Path("keys", role+".pem"))
	if err != nil {
		return nil, err
	}
	signer, err := signature.LoadSigner(key, crypto.Hash(0))
	if err != nil {
		return nil, fmt.Errorf("loading the %s key: %w", role, err)
	}
	if _, err := m.Sign(signer); err != nil {
		return nil, fmt.Errorf("signing the %s metadata: %w", role, err)
	}
	data, err := m.ToBytes(true)
	if err != nil {
		return nil, fmt.Errorf("encoding the %s metadata: %w", role, err)
	}
	return data, nil
}

// ArtifactFile returns the path of the stored bytes of a digest.
func (c *Catalogue) ArtifactFile(sha256Hex string) string {
	return c.place.Path("artifacts", sha256Hex)
}

// ManifestFile opens one stored metadata file by its name.
func (c *Catalogue) ManifestFile(name string) ([]byte, error) {
	data, err := os.ReadFile(c.place.Path("manifest", name))
	if err != nil {
		return nil, fmt.Errorf("reading the manifest: %w", err)
	}
	return data, nil
}
