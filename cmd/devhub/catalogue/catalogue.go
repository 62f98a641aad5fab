// Package catalogue is the development hub's list of artifacts. It copies model files and runtime archives
// into the artifact store, and signs the list as a TUF repository.
//
// The list is catalogue.json. The metadata is generated from it, so that URLs follow the hub's ports and
// expiry dates are renewed at each signing. Every change happens under the directory's lock and ends with the
// timestamp, so a reader sees the old list or the new one.
package catalogue

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"companion/adapters/privatefs"
	"companion/cmd/devhub/place"
	"companion/messages"
)

// Catalogue is the list of one hub directory.
type Catalogue struct{ place *place.Place }

// Entry is one artifact of the list.
type Entry struct {
	Custom messages.TargetCustom `json:"custom"`
	SHA256 string                `json:"sha256"` // lower-case hex
	Length int64                 `json:"length"` // bytes
	// Stored: the bytes are in the hub's own artifact store, and URLs and origins are made at signing.
	Stored bool `json:"stored"`
}

// path is the entry's name as a TUF target (messages.TargetCustom).
func (e Entry) path() string {
	if e.Custom.Kind == messages.KindRuntime {
		return "runtime/" + e.Custom.Platform + "/" + e.Custom.Name
	}
	return "model/" + e.Custom.Name
}

// list is catalogue.json. Version is the version of the newest signed metadata.
type list struct {
	Version int64   `json:"version"`
	Entries []Entry `json:"entries"`
}

// Open opens the catalogue of a hub directory, and creates keys and a first, empty manifest if there is none.
func Open(p *place.Place) (*Catalogue, error) {
	c := &Catalogue{place: p}
	unlock, err := p.Lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := os.Lstat(p.RootFile()); err == nil {
		return c, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("looking for the manifest's root: %w", err)
	}
	if err := c.makeRoot(); err != nil {
		return nil, err
	}
	return c, c.signLocked()
}

// Sign renews the signed metadata: expiry dates, and the URLs of stored artifacts.
func (c *Catalogue) Sign() error {
	unlock, err := c.place.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	return c.signLocked()
}

// add replaces the entry of the same name, and signs. A new default removes the mark from the others of its
// kind and platform; the first of its kind and platform is the default.
func (c *Catalogue) add(e Entry) (Entry, error) {
	unlock, err := c.place.Lock()
	if err != nil {
		return Entry{}, err
	}
	defer unlock()
	l, err := c.read()
	if err != nil {
		return Entry{}, err
	}
	if e.Custom.Version == "" {
		e.Custom.Version = nextVersion(l, e)
	}
	l.Entries = slices.DeleteFunc(l.Entries, func(old Entry) bool { return old.path() == e.path() })
	siblings := func(o Entry) bool {
		return o.Custom.Kind == e.Custom.Kind && o.Custom.Platform == e.Custom.Platform
	}
	if !slices.ContainsFunc(l.Entries, siblings) {
		e.Custom.Default = true
	}
	for i := range l.Entries {
		if e.Custom.Default && siblings(l.Entries[i]) {
			l.Entries[i].Custom.Default = false
		}
	}
	l.Entries = append(l.Entries, e)
	if err := c.write(l); err != nil {
		return Entry{}, err
	}
	return e, c.signLocked()
}

// nextVersion returns the next number. A digest would be a natural version, but versions are shown and logged, and
// digests must not be.
func nextVersion(l list, e Entry) string {
	for _, old := range l.Entries {
		if old.path() != e.path() {
			continue
		}
		if old.sameBytes(e) {
			return old.Custom.Version
		}
		var n int
		if _, err := fmt.Sscanf(old.Custom.Version, "%d", &n); err == nil {
			return fmt.Sprint(n + 1)
		}
	}
	return "1"
}

func (c *Catalogue) read() (list, error) {
	var l list
	data, err := os.ReadFile(c.place.Path("catalogue.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, fmt.Errorf("reading the catalogue: %w", err)
	}
	if err := json.Unmarshal(data, &l); err != nil {
		return l, fmt.Errorf("reading the catalogue: %w", err)
	}
	return l, nil
}

func (c *Catalogue) write(l list) error {
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the catalogue: %w", err)
	}
	return privatefs.WriteFile(c.place.Path("catalogue.json"), data)
}
