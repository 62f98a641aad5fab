package catalogue

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"companion/adapters/artifact"
	"companion/adapters/gguf"
	"companion/messages"
)

// brought is one file that was read for its digest, and copied into the store's folder if it is stored.
type brought struct {
	messages.TargetPart
	file   string // temporary
	stored bool
}

func (b *brought) discard() { _ = os.Remove(b.file) }

// bring reads a file or a URL.
func (c *Catalogue) bring(ctx context.Context, client *http.Client, p Publication, source string) (*brought, error) {
	remote := strings.Contains(source, "://")
	b := &brought{stored: !remote}
	if remote {
		if err := b.setSource(source, p.Origins); err != nil {
			return nil, err
		}
	} else if len(p.Origins) > 0 {
		return nil, errors.New("origins are for a URL: a file is served by this hub")
	}
	var err error
	if b.file, err = c.take(ctx, client, b, source, remote); err != nil {
		return nil, err
	}
	if err := b.addChunks(p.ChunkSize); err != nil {
		b.discard()
		return nil, err
	}
	return b, nil
}

// keep moves a stored file to its place.
func (c *Catalogue) keep(b *brought) error {
	if !b.stored {
		return nil
	}
	if err := os.Rename(b.file, c.ArtifactFile(b.SHA256)); err != nil {
		return fmt.Errorf("storing the artifact: %w", err)
	}
	return nil
}

// bringParts adds the further files of a model to its entry, and returns them (M17).
func (c *Catalogue) bringParts(ctx context.Context, client *http.Client, e *Entry, p Publication, source string, first *brought) ([]*brought, error) {
	sources, parts, err := splitSources(p, source, first.file)
	if err != nil {
		return nil, err
	}
	var all []*brought
	bring := func(source string, check func(gguf.Header) error) (*messages.TargetPart, error) {
		b, err := c.bring(ctx, client, p, source)
		if err != nil {
			return nil, err
		}
		all = append(all, b)
		b.Name = partNameOf(source)
		h, err := headerOf(b.file)
		if err == nil {
			err = check(h)
		}
		if err != nil && !p.Unchecked {
			return nil, fmt.Errorf("%s: %w", b.Name, err)
		}
		return &b.TargetPart, nil
	}
	for i, source := range sources {
		part, err := bring(source, func(h gguf.Header) error { return isPart(h, i+2, parts) })
		if err != nil {
			return all, err
		}
		e.Custom.Parts = append(e.Custom.Parts, *part)
	}
	if p.Projector != "" {
		if e.Custom.Projector, err = bring(p.Projector, isProjector); err != nil {
			return all, err
		}
	}
	if p.Draft != "" {
		if e.Custom.Draft, err = bring(p.Draft, isWhole); err != nil {
			return all, err
		}
	}
	return all, nil
}

// splitSources returns where the parts 2 to n are. Those of a file may lie next to it.
func splitSources(p Publication, source, first string) (sources []string, parts int, err error) {
	if p.Kind != messages.KindModel {
		if len(p.Parts) > 0 || p.Projector != "" || p.Draft != "" {
			return nil, 0, errors.New("--part, --mmproj and --draft are for a model")
		}
		return nil, 0, nil
	}
	h, err := headerOf(first)
	if err != nil && len(p.Parts) > 0 && !p.Unchecked {
		return nil, 0, err
	}
	part, parts := h.Part() // of a header that cannot be read: none
	switch {
	case p.Unchecked:
		return p.Parts, len(p.Parts) + 1, nil
	case part > 1:
		return nil, 0, fmt.Errorf("it is part %d of %d of a model: give part 1, and the others with --part", part, parts)
	case parts > artifact.MaxParts:
		return nil, 0, fmt.Errorf("the model has %d parts, %d at most are accepted: merge some with llama-gguf-split --merge", parts, artifact.MaxParts)
	case len(p.Parts) > 0 && len(p.Parts) != max(parts-1, 0):
		return nil, 0, fmt.Errorf("the model has %d parts, and %d are given with --part: give the parts 2 to n, in order", max(parts, 1), len(p.Parts))
	case len(p.Parts) > 0 || parts == 0:
		return p.Parts, parts, nil
	}
	sources, ok := gguf.PartFiles(source, parts)
	if !ok || strings.Contains(source, "://") {
		return nil, 0, fmt.Errorf("it is part 1 of %d of a model: give the others in order with --part", parts)
	}
	for _, name := range sources {
		if _, err := os.Stat(name); err != nil {
			return nil, 0, fmt.Errorf("it is part 1 of %d of a model, and %s is not next to it: put it there, or give the parts in order with --part",
				parts, filepath.Base(name))
		}
	}
	return sources, parts, nil
}

var notInName = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// partNameOf is the file name of a source, as a name in the manifest.
func partNameOf(source string) string {
	base := path.Base(filepath.ToSlash(strings.SplitN(source, "?", 2)[0]))
	name := strings.TrimLeft(notInName.ReplaceAllString(base, "-"), "._-")
	return name[:min(len(name), 128)]
}

func headerOf(file string) (gguf.Header, error) {
	f, err := os.Open(filepath.Clean(file))
	if err != nil {
		return gguf.Header{}, fmt.Errorf("opening the model: %w", err)
	}
	defer f.Close()
	return gguf.Read(f)
}

func isPart(h gguf.Header, want, of int) error {
	if no, n := h.Part(); no != want || n != of {
		return fmt.Errorf("it is part %d of %d, want part %d of %d: give the parts in order", no, n, want, of)
	}
	return nil
}

func isProjector(h gguf.Header) error {
	if h.Architecture() != "clip" {
		return fmt.Errorf("it is no projector: its architecture is %q, want \"clip\"", h.Architecture())
	}
	return nil
}

func isWhole(h gguf.Header) error {
	if _, of := h.Part(); of > 0 || h.Architecture() == "clip" {
		return errors.New("it is not a whole model of one file, as a draft model must be")
	}
	return nil
}

// checkTarget checks what will be signed against the schema that clients check, and against their limits.
func checkTarget(e Entry, unchecked bool) error {
	if unchecked {
		return nil
	}
	custom := e.Custom
	if custom.Version == "" {
		custom.Version = "1" // counted later
	}
	custom = withURLs(custom, "https://localhost")
	data, err := json.Marshal(custom)
	if err != nil {
		return fmt.Errorf("describing the artifact: %w", err)
	}
	if err := artifact.CheckSchema(data); err != nil || custom.Kind != messages.KindModel {
		return err
	}
	sum, err := hex.DecodeString(e.SHA256)
	if err != nil {
		return fmt.Errorf("reading the digest: %w", err)
	}
	model, err := artifact.Compose(messages.Artifact{
		Name: custom.Name, Version: custom.Version, Kind: custom.Kind, SHA256: [32]byte(sum), Size: e.Length,
		URLs: []string{"https://localhost/m"}, Origins: []string{"https://localhost/"},
	}, custom)
	if err != nil {
		return err
	}
	return artifact.Check(model)
}

// Further returns the further files of a model.
func (e Entry) Further() []messages.TargetPart {
	all := slices.Clone(e.Custom.Parts)
	for _, p := range []*messages.TargetPart{e.Custom.Projector, e.Custom.Draft} {
		if p != nil {
			all = append(all, *p)
		}
	}
	return all
}

// sameBytes reports whether two entries are the same files and settings.
func (e Entry) sameBytes(o Entry) bool {
	digests := func(e Entry) []string {
		all := []string{e.SHA256}
		for _, p := range e.Further() {
			all = append(all, p.SHA256)
		}
		return all
	}
	return slices.Equal(digests(e), digests(o)) && reflect.DeepEqual(e.Custom.ModelSettings, o.Custom.ModelSettings)
}

// withURLs fills in where the stored parts are served. A part of another host has its URLs.
func withURLs(c messages.TargetCustom, base string) messages.TargetCustom {
	fill := func(p messages.TargetPart) messages.TargetPart {
		if len(p.URLs) == 0 {
			p.URLs, p.Origins = []string{base + "/artifacts/" + p.SHA256}, []string{base + "/artifacts/"}
		}
		return p
	}
	var parts []messages.TargetPart
	for _, p := range c.Parts {
		parts = append(parts, fill(p))
	}
	c.Parts = parts
	for _, p := range []**messages.TargetPart{&c.Projector, &c.Draft} {
		if *p != nil {
			filled := fill(**p)
			*p = &filled
		}
	}
	return c
}
