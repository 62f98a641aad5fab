package tuf

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	stdjson "encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/gofrs/flock"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"companion/adapters/privatefs"
	"companion/messages"
)

// Own is the user's own catalogue (M16): a TUF repository in a private folder, signed with a key of the user. Its root is
// pinned in the same folder. One key signs all four roles, because one person holds all of them. It does not expire: no
// server has to renew it.
type Own struct{ config OwnConfig }

// OwnConfig says where the catalogue is.
type OwnConfig struct {
	Dir          string // private; created at the first Add
	Platform     string
	PrivateHosts []string
}

// NewOwn returns the catalogue of a folder, which need not exist.
func NewOwn(c OwnConfig) *Own { return &Own{c} }

const (
	ownRootFile = "root.json"      // pinned
	ownFile     = "catalogue.json" // ownMetadata
	ownKeyFile  = "key.pem"
	ownLockFile = "lock"
)

// ownMetadata is the content of ownFile: all of it in one file, so that no crash can mix two versions.
type ownMetadata struct {
	Timestamp []byte `json:"timestamp"`
	Snapshot  []byte `json:"snapshot"`
	Targets   []byte `json:"targets"`
}

// never is the expiry date of the metadata.
var never = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// OwnError says why the catalogue cannot be changed, or that it does not verify.
type OwnError struct {
	What string
	Hint string // what the user can do
	err  error
}

func (e *OwnError) Error() string { return "your catalogue: " + e.What }
func (e *OwnError) Unwrap() error { return e.err }

// Load returns the verified catalogue, which is empty if nothing was ever added. A catalogue that does not verify is a
// *Error with manifest_untrusted, which wraps an *OwnError.
func (o *Own) Load() (Catalogue, error) {
	set, err := o.load()
	if err != nil {
		return Catalogue{}, &Error{Reason: messages.ReasonManifestUntrusted, cause: err}
	}
	if set == nil {
		return Catalogue{refused: map[string]messages.Reason{}}, nil
	}
	var cat Catalogue
	err = contain(func() error {
		cat = o.reader().entries(set)
		return nil
	})
	return cat, err
}

// load verifies the stored metadata from the pinned root. It returns nil if there is none.
func (o *Own) load() (*trustedmetadata.TrustedMetadata, error) {
	unusable := func(what string, err error) error {
		return &OwnError{what, "if it cannot be repaired, move the folder " + o.config.Dir + " away and add the files again", err}
	}
	root, rootErr := o.read(ownRootFile)
	data, dataErr := o.read(ownFile)
	switch {
	case errors.Is(rootErr, fs.ErrNotExist) && errors.Is(dataErr, fs.ErrNotExist):
		return nil, nil
	case rootErr != nil:
		return nil, unusable("its root cannot be read", rootErr)
	case errors.Is(dataErr, fs.ErrNotExist):
		return nil, nil // a crash came between the root and the first catalogue
	case dataErr != nil:
		return nil, unusable("it cannot be read", dataErr)
	}
	var m ownMetadata
	if err := json.Unmarshal(data, &m, json.RejectUnknownMembers(true)); err != nil {
		return nil, unusable("its file is damaged", err)
	}
	var set *trustedmetadata.TrustedMetadata
	err := contain(func() (err error) { set, err = verifyOwn(root, m); return err })
	if err != nil {
		return nil, unusable("it is not signed with your key", err)
	}
	return set, nil
}

// verifyOwn verifies m from the root. The dates do not matter.
func verifyOwn(root []byte, m ownMetadata) (*trustedmetadata.TrustedMetadata, error) {
	set, err := trustedmetadata.New(root)
	if err != nil {
		return nil, err
	}
	set.RefTime = time.Time{}
	if _, err := set.UpdateTimestamp(m.Timestamp); err != nil {
		return nil, err
	}
	if _, err := set.UpdateSnapshot(m.Snapshot, false); err != nil {
		return nil, err
	}
	_, err = set.UpdateTargets(m.Targets)
	return set, err
}

// read reads a file of the catalogue, which must be private (T17).
func (o *Own) read(name string) ([]byte, error) {
	path := filepath.Join(o.config.Dir, name)
	if err := privatefs.CheckFile(path); err != nil {
		return nil, err
	}
	return privatefs.ReadRegular(path)
}

// OwnTarget is one artifact of the user.
type OwnTarget struct {
	Custom messages.TargetCustom
	SHA256 [32]byte
	Size   int64
}

func (t OwnTarget) path() string {
	if t.Custom.Kind == messages.KindRuntime {
		return "runtime/" + t.Custom.Platform + "/" + t.Custom.Name
	}
	return "model/" + t.Custom.Name
}

// Add signs t into the catalogue. A new default removes the mark from the others of its kind. A name that another artifact of
// the catalogue has is refused; the same artifact again only changes what is said about it. What the reader of the catalogue
// would refuse is not signed.
func (o *Own) Add(ctx context.Context, t OwnTarget) error {
	custom, err := json.Marshal(t.Custom)
	if err != nil {
		return fmt.Errorf("describing the artifact: %w", err)
	}
	target := targetOf(t.SHA256[:], t.Size, custom)
	if err := o.check(t, target); err != nil {
		return &OwnError{What: "this artifact cannot be used: " + err.Error(), Hint: "add another file", err: err}
	}
	return o.change(ctx, func(targets map[string]*metadata.TargetFiles) error {
		for path, file := range targets {
			_, _, name, _ := splitTarget(path)
			if name == t.Custom.Name && (path != t.path() || hex.EncodeToString(file.Hashes["sha256"]) != hex.EncodeToString(t.SHA256[:])) {
				return &OwnError{What: "it has another artifact named " + name,
					Hint: "give this one another name with --name, or first `companion remove " + name + "`"}
			}
		}
		if t.Custom.Default {
			if err := clearDefault(targets, t.Custom.Kind); err != nil {
				return err
			}
		}
		targets[t.path()] = target
		return nil
	})
}

// check refuses what Load would not offer.
func (o *Own) check(t OwnTarget, file *metadata.TargetFiles) error {
	kind, platform, name, ok := splitTarget(t.path())
	if !ok {
		return errors.New("its name is malformed")
	}
	if kind == messages.KindRuntime && platform != o.config.Platform {
		return fmt.Errorf("it is for %s, and this machine is %s", platform, o.config.Platform)
	}
	_, err := o.reader().parseTarget(kind, platform, name, file)
	return err
}

func (o *Own) reader() reader {
	return reader{platform: o.config.Platform, privateHosts: o.config.PrivateHosts, own: true}
}

func targetOf(digest []byte, size int64, custom []byte) *metadata.TargetFiles {
	file := metadata.TargetFile()
	file.Length, file.Hashes = size, metadata.Hashes{"sha256": digest}
	raw := stdjson.RawMessage(custom)
	file.Custom = &raw
	return file
}

// clearDefault removes the mark of the default from all targets of a kind.
func clearDefault(targets map[string]*metadata.TargetFiles, kind messages.ArtifactKind) error {
	for path, file := range targets {
		if of, _, _, _ := splitTarget(path); of != kind || file.Custom == nil {
			continue
		}
		var custom messages.TargetCustom
		if err := json.Unmarshal(*file.Custom, &custom); err != nil {
			return fmt.Errorf("reading the description of %s: %w", path, err)
		}
		if !custom.Default {
			continue
		}
		custom.Default = false
		data, err := json.Marshal(custom)
		if err != nil {
			return fmt.Errorf("describing %s: %w", path, err)
		}
		targets[path] = targetOf(file.Hashes["sha256"], file.Length, data)
	}
	return nil
}

// Remove takes the artifact of that name out of the catalogue.
func (o *Own) Remove(ctx context.Context, name string) error {
	return o.change(ctx, func(targets map[string]*metadata.TargetFiles) error {
		for path := range targets {
			if _, _, named, _ := splitTarget(path); named == name {
				delete(targets, path)
				return nil
			}
		}
		return &OwnError{What: "it has nothing named " + name, Hint: "`companion models` marks what is yours"}
	})
}

// lockPatience bounds the wait for another command that changes the catalogue.
const lockPatience = 10 * time.Second

// change edits the targets under a lock, signs them as the next version and stores them.
func (o *Own) change(ctx context.Context, edit func(map[string]*metadata.TargetFiles) error) error {
	if err := privatefs.EnsureDir(o.config.Dir); err != nil {
		return err
	}
	lock := flock.New(filepath.Join(o.config.Dir, ownLockFile), flock.SetPermissions(0o600))
	waiting, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	if locked, err := lock.TryLockContext(waiting, 50*time.Millisecond); !locked {
		return &OwnError{What: "another command is changing it", Hint: "wait for that one, then try again", err: err}
	}
	defer lock.Unlock()
	privatefs.RemoveUnfinished(o.config.Dir, ownFile, ownKeyFile, ownRootFile)
	set, err := o.load()
	if err != nil {
		return err
	}
	key, root, err := o.keyAndRoot()
	if err != nil {
		return err
	}
	targets := metadata.Targets(never)
	if set != nil {
		targets.Signed.Targets = set.Targets[metadata.TARGETS].Signed.Targets
		targets.Signed.Version = set.Targets[metadata.TARGETS].Signed.Version + 1
	}
	if err := edit(targets.Signed.Targets); err != nil {
		return err
	}
	m, err := signOwn(key, targets)
	if err != nil {
		return err
	}
	if _, err := verifyOwn(root, m); err != nil {
		return &OwnError{"its key " + o.path(ownKeyFile) + " does not belong to its root", "put the right key back, or move the folder away and add the files again", err}
	}
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encoding your catalogue: %w", err)
	}
	return privatefs.WriteFile(o.path(ownFile), data)
}

func (o *Own) path(name string) string { return filepath.Join(o.config.Dir, name) }

// keyAndRoot reads the user's key and the pinned root, and makes both if there is neither. The key is written first: a root
// without its key could never be used.
func (o *Own) keyAndRoot() (ed25519.PrivateKey, []byte, error) {
	root, rootErr := o.read(ownRootFile)
	if rootErr != nil && !errors.Is(rootErr, fs.ErrNotExist) {
		return nil, nil, rootErr
	}
	key, keyErr := o.key()
	switch {
	case keyErr == nil && rootErr == nil:
		return key, root, nil
	case keyErr != nil && !errors.Is(keyErr, fs.ErrNotExist):
		return nil, nil, keyErr
	case keyErr != nil && rootErr == nil:
		return nil, nil, &OwnError{"its key " + o.path(ownKeyFile) + " is missing, and nothing can be signed without it",
			"put the key back, or move the folder away and add the files again", keyErr}
	}
	if keyErr != nil {
		_, key, _ = ed25519.GenerateKey(nil)
		encoded, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, nil, fmt.Errorf("encoding your key: %w", err)
		}
		if err := privatefs.WriteFile(o.path(ownKeyFile), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})); err != nil {
			return nil, nil, err
		}
	}
	root, err := newRoot(key)
	if err == nil {
		err = privatefs.WriteFile(o.path(ownRootFile), root)
	}
	return key, root, err
}

func (o *Own) key() (ed25519.PrivateKey, error) {
	data, err := o.read(ownKeyFile)
	if err != nil {
		return nil, err
	}
	damaged := &OwnError{"its key " + o.path(ownKeyFile) + " is damaged", "put the right key back, or move the folder away and add the files again", nil}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, damaged
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, damaged
	}
	return key, nil
}

// newRoot returns a root that trusts key for every role.
func newRoot(key ed25519.PrivateKey) ([]byte, error) {
	root := metadata.Root(never)
	public, err := metadata.KeyFromPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("encoding your key: %w", err)
	}
	for _, role := range []string{metadata.ROOT, metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS} {
		if err := root.Signed.AddKey(public, role); err != nil {
			return nil, fmt.Errorf("adding your key: %w", err)
		}
	}
	return signedWith(key, root)
}

// signOwn signs targets, with a snapshot and a timestamp of the same version.
func signOwn(key ed25519.PrivateKey, targets *metadata.Metadata[metadata.TargetsType]) (m ownMetadata, err error) {
	version := targets.Signed.Version
	snapshot, timestamp := metadata.Snapshot(never), metadata.Timestamp(never)
	snapshot.Signed.Version, timestamp.Signed.Version = version, version
	snapshot.Signed.Meta["targets.json"] = metadata.MetaFile(version)
	timestamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(version)
	if m.Targets, err = signedWith(key, targets); err != nil {
		return m, err
	}
	if m.Snapshot, err = signedWith(key, snapshot); err != nil {
		return m, err
	}
	m.Timestamp, err = signedWith(key, timestamp)
	return m, err
}

func signedWith[T metadata.Roles](key ed25519.PrivateKey, m *metadata.Metadata[T]) ([]byte, error) {
	signer, err := signature.LoadSigner(key, crypto.Hash(0))
	if err != nil {
		return nil, fmt.Errorf("loading your key: %w", err)
	}
	if _, err := m.Sign(signer); err != nil {
		return nil, fmt.Errorf("signing your catalogue: %w", err)
	}
	data, err := m.ToBytes(false)
	if err != nil {
		return nil, fmt.Errorf("encoding your catalogue: %w", err)
	}
	return data, nil
}
