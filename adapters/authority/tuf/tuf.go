// Package tuf fetches and verifies the first-party signed manifest: a TUF repository whose root is
// pinned on the device (contract M1–M4, M13). It returns a Catalogue of signed artifacts or an *Error, never a part
// of one.
//
// go-tuf checks signatures, thresholds, expiry and rollback. This package adds what go-tuf leaves to its caller. The
// newest verified root and a floor of versions are stored, so that a server that hides newer versions cannot roll the client
// back. Stored metadata is verified again before use, and an invalid file is renamed, so that a truncated file blocks nothing.
// Each refresh has its own updater and scratch folder. A panic in go-tuf, over unusual but validly signed metadata, is an
// *Error. The fetcher bounds every file and sends the access token to the hub only.
package tuf

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"

	"companion/adapters/privatefs"
	"companion/messages"
)

// Config says where the manifest is and what is trusted.
type Config struct {
	URL  string // prefix of the metadata files, https, such as "https://hub.example/api/v1/manifest/"
	Root []byte // the pinned root.json
	Dir  string // private folder for verified metadata
	// Platform picks the runtimes, such as "linux/amd64".
	Platform string
	// PrivateHosts is copied into the artifacts (M4).
	PrivateHosts []string
	// HTTP follows no redirect and verifies TLS: see package transport.
	HTTP *http.Client
}

// Error says why there is no manifest: manifest_untrusted, manifest_expired, manifest_rollback,
// manifest_unreachable, no_space, or reauth if the hub did not accept the access token.
type Error struct {
	Reason messages.Reason
	// RetryAfter is the hub's Retry-After (RFC 9110, section 10.2.3); zero if there is none.
	RetryAfter time.Duration
	cause      error
}

func (e *Error) Error() string { return "manifest: " + string(e.Reason) }
func (e *Error) Unwrap() error { return e.cause }

// ReasonOf returns the reason of a manifest error: ReasonOK for nil, ReasonManifestUntrusted for an
// error of another kind.
func ReasonOf(err error) messages.Reason {
	var e *Error
	switch {
	case err == nil:
		return messages.ReasonOK
	case errors.As(err, &e):
		return e.Reason
	}
	return messages.ReasonManifestUntrusted
}

// Client reads one repository. Safe for concurrent use; refreshes run one after the other.
type Client struct {
	config Config
	base   *url.URL
	store  store
	mu     sync.Mutex
	recent []kept // manifests that were loaded or refreshed, newest last
}

// New checks the configuration and the pinned root, and makes the folder. Each pinned root has its own folder, so that
// the versions of one repository are never compared with those of another.
func New(c Config) (*Client, error) {
	base, err := url.Parse(c.URL)
	if err != nil || base.Scheme != "https" || base.Hostname() == "" || base.User != nil || base.RawQuery != "" ||
		!strings.HasSuffix(base.Path, "/") {
		return nil, fmt.Errorf("the manifest's URL %q is not an https URL that ends in a slash", c.URL)
	}
	if err := checkRoot(c.Root); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(c.Root)
	dir := filepath.Join(c.Dir, hex.EncodeToString(sum[:8]))
	for _, d := range []string{c.Dir, dir} {
		if err := privatefs.EnsureDir(d); err != nil {
			return nil, fmt.Errorf("making the folder of the manifest: %w", err)
		}
	}
	return &Client{config: c, base: base, store: store{dir: dir, pinned: c.Root}}, nil
}

// ReadRoot reads a file that can be pinned: the root metadata of a TUF repository, signed by itself.
func ReadRoot(file string) ([]byte, error) {
	root, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the root of the manifest: %w", err)
	}
	if checkRoot(root) != nil {
		return nil, fmt.Errorf("%s holds no root of a TUF repository", file)
	}
	return root, nil
}

func checkRoot(root []byte) error {
	if len(root) == 0 {
		return errors.New("no root of the manifest is pinned")
	}
	if err := contain(func() error { _, err := trustedmetadata.New(root); return err }); err != nil {
		return fmt.Errorf("reading the pinned root: %w", err)
	}
	return nil
}

// Refresh fetches the newest manifest and returns it when all of it is verified, unexpired and stored. access may be
// zero; it is sent to the hub's host only.
func (c *Client) Refresh(ctx context.Context, access messages.Secret) (Catalogue, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var cat Catalogue
	err := contain(func() (err error) { cat, err = c.refresh(ctx, access); return err })
	if err != nil {
		return Catalogue{}, classify(err)
	}
	return cat, nil
}

// Load returns the manifest that was verified last, without network access and regardless of its expiry; see
// Catalogue.Standing. If none verifies, the reason is manifest_unreachable.
func (c *Client) Load() (Catalogue, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var cat Catalogue
	err := contain(func() error {
		m, err := c.store.load()
		if err != nil {
			return err
		}
		if !m.complete() {
			return &Error{Reason: messages.ReasonManifestUnreachable, cause: errors.New("no verified manifest is kept")}
		}
		if m.kept.floor.above(m.set) && m.newest == m.set.Root || m.newest.Signed.Version < m.kept.floor.Root {
			return &Error{Reason: messages.ReasonManifestRollback, cause: errors.New("the kept manifest is older than one seen before")}
		}
		cat = c.catalogue(m.set, m.kept.CheckedAt)
		c.note(m.kept.upTo(m.set.Root))
		return nil
	})
	if err != nil {
		return Catalogue{}, classify(err)
	}
	return cat, nil
}

// scratchPrefix is the name prefix of a refresh's scratch folder.
const scratchPrefix = "refresh-"

// removeScratch removes the scratch folders and unfinished files of refreshes that an end of the process interrupted.
func (c *Client) removeScratch() {
	privatefs.RemoveUnfinished(c.store.dir, verifiedFile, floorFile, lastGoodFile)
	left, _ := os.ReadDir(c.store.dir) // the next refresh tries again
	for _, entry := range left {
		if strings.HasPrefix(entry.Name(), scratchPrefix) {
			_ = os.RemoveAll(filepath.Join(c.store.dir, entry.Name()))
		}
	}
}

// refresh refreshes once, and a second time if the root has new timestamp or snapshot keys, because metadata that was signed
// with the old keys then does not count.
func (c *Client) refresh(ctx context.Context, access messages.Secret) (Catalogue, error) {
	before, err := c.store.load()
	if err != nil {
		return Catalogue{}, err
	}
	cat, newest, err := c.refreshFrom(ctx, access, before)
	var version *metadata.ErrBadVersionNumber
	if errors.As(err, &version) && newest != nil && rotated(before.set.Root, newest) {
		after, err := c.store.load()
		if err != nil {
			return Catalogue{}, err
		}
		cat, _, err = c.refreshFrom(ctx, access, after)
		return cat, err
	}
	return cat, err
}

// refreshFrom fetches and verifies what is newer than m. It returns the newest root as well.
func (c *Client) refreshFrom(ctx context.Context, access messages.Secret, m manifest) (Catalogue, *metadata.Metadata[metadata.RootType], error) {
	c.removeScratch()
	scratch, err := os.MkdirTemp(c.store.dir, scratchPrefix)
	if err != nil {
		return Catalogue{}, nil, fmt.Errorf("making a scratch folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	for role, data := range m.verified() {
		if err := privatefs.WriteFile(filepath.Join(scratch, role+".json"), data); err != nil {
			return Catalogue{}, nil, fmt.Errorf("laying out the verified metadata: %w", err)
		}
	}
	root := m.kept.newestRoot(c.config.Root)
	conf, err := config.New(c.config.URL, root)
	if err != nil {
		return Catalogue{}, nil, fmt.Errorf("configuring the TUF client: %w", err)
	}
	fetch := &fetcher{ctx: ctx, client: c.config.HTTP, base: c.base, access: access, roots: map[int64][]byte{}}
	conf.Fetcher, conf.LocalMetadataDir, conf.LocalTargetsDir = fetch, scratch, scratch
	up, err := updater.New(conf)
	if err != nil {
		return Catalogue{}, nil, fmt.Errorf("starting the TUF client: %w", err)
	}
	refreshed := up.Refresh()
	set := up.GetTrustedMetadataSet()
	// Newer roots are verified independently, and are stored even if the other files were refused.
	if err := c.store.keepRoots(&m, fetch.roots, set.Root); err != nil {
		return Catalogue{}, nil, err
	}
	if refreshed != nil {
		return Catalogue{}, set.Root, fetch.explain(refreshed)
	}
	if m.kept.floor.above(&set) {
		return Catalogue{}, set.Root, &Error{Reason: messages.ReasonManifestRollback, cause: errors.New("older than a manifest seen before")}
	}
	m.kept.CheckedAt = time.Now().UTC()
	cat := c.catalogue(&set, m.kept.CheckedAt)
	k, err := c.store.keep(m.kept, scratch, &set)
	if err != nil {
		return Catalogue{}, set.Root, err
	}
	c.note(k)
	return cat, set.Root, nil
}

// contain turns a panic of go-tuf into an error (M1).
func contain(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &Error{Reason: messages.ReasonManifestUntrusted, cause: errors.New("the metadata made its reader panic")}
		}
	}()
	return f()
}

// classify returns err with its reason. An unknown failure is manifest_untrusted.
func classify(err error) error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	reason := messages.ReasonManifestUntrusted
	var status *metadata.ErrDownloadHTTP
	var expired *metadata.ErrExpiredMetadata
	var version *metadata.ErrBadVersionNumber
	var path *fs.PathError
	switch {
	case errors.As(err, &expired):
		reason = messages.ReasonManifestExpired
	case errors.As(err, &version):
		reason = messages.ReasonManifestRollback
	case errors.As(err, &status) && status.StatusCode == http.StatusUnauthorized:
		reason = messages.ReasonSignInNeeded
	case errors.As(err, &status) && status.StatusCode/100 == 3:
		// No redirect is followed: metadata from elsewhere is not the hub's (M2).
		reason = messages.ReasonManifestUntrusted
	case errors.As(err, &status), errors.Is(err, errFetch):
		reason = messages.ReasonManifestUnreachable
	case errors.Is(err, syscall.ENOSPC):
		reason = messages.ReasonNoSpace
	case errors.As(err, &path):
		reason = messages.ReasonManifestUnreachable
	}
	classified := &Error{Reason: reason, cause: err}
	if wait := (*waitError)(nil); errors.As(err, &wait) {
		classified.RetryAfter = wait.after
	}
	return classified
}
