package catalogue

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"companion/adapters/artifact"
	"companion/adapters/runtime/archive"
	"companion/messages"
)

// Publication describes an artifact to publish.
type Publication struct {
	Kind     messages.ArtifactKind
	Name     string
	Version  string // empty: the next number
	Platform string // of a runtime, such as "linux/amd64"
	Default  bool
	// Embedding: the model computes embeddings.
	Embedding bool
	// Origins that the manifest allows in addition to the URL's own folder; only for a URL.
	Origins []string
	// Executable is the archive-relative path of the program; empty: the one file named llama-server.
	Executable string
	// ChunkSize is the size of the chunks whose digests are signed (M14); 0: chosen by the file's size; negative: no chunks.
	ChunkSize int64
	// Parts are the sources of the files 2 to n of a split model; empty: those next to a file that is the first part. Projector
	// and Draft are the sources of its other files (M17).
	Parts            []string
	Projector, Draft string
	Settings         messages.ModelSettings
	// Unchecked accepts the artifact without checks, even an archive that no client should unpack.
	Unchecked bool
	// FilesOf is another archive, whose list of files is signed instead, for the manifest of a hostile hub.
	FilesOf string
}

var (
	nameRule     = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	versionRule  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$`)
	platformRule = regexp.MustCompile(`^[a-z0-9]+/[a-z0-9]+$`)
)

func (p Publication) check() error {
	switch {
	case p.Kind != messages.KindModel && p.Kind != messages.KindRuntime:
		return fmt.Errorf("unknown kind %q: accepted are %s and %s", p.Kind, messages.KindModel, messages.KindRuntime)
	case !nameRule.MatchString(p.Name):
		return fmt.Errorf("bad name %q: accepted are lower-case letters, digits, dot, dash and underscore, 64 at most", p.Name)
	case p.Version != "" && !versionRule.MatchString(p.Version):
		return fmt.Errorf("bad version %q: accepted are letters, digits and . _ + -, 64 at most", p.Version)
	case p.ChunkSize > 0 && (p.ChunkSize < artifact.MinChunk || p.ChunkSize > artifact.MaxChunk):
		return fmt.Errorf("chunks of %d bytes are not accepted: use %d to %d", p.ChunkSize, artifact.MinChunk, artifact.MaxChunk)
	case p.Kind == messages.KindRuntime && !platformRule.MatchString(p.Platform):
		return fmt.Errorf("bad platform %q: accepted are names such as linux/amd64", p.Platform)
	}
	return nil
}

// Publish signs the artifact into the catalogue. source is a file, which is copied into the store, or an https URL,
// which is read once for its digest and not copied.
func (c *Catalogue) Publish(ctx context.Context, client *http.Client, p Publication, source string) (Entry, error) {
	if err := p.check(); err != nil {
		return Entry{}, err
	}
	e := Entry{Custom: messages.TargetCustom{
		Kind: p.Kind, Name: p.Name, Version: p.Version, Default: p.Default, Embedding: p.Embedding, ModelSettings: p.Settings,
	}}
	first, err := c.bring(ctx, client, p, source)
	if err != nil {
		return Entry{}, err
	}
	defer first.discard()
	e.SHA256, e.Length, e.Stored = first.SHA256, first.Length, first.stored
	e.Custom.URLs, e.Custom.Origins = first.URLs, first.Origins
	e.Custom.ChunkSize, e.Custom.Chunks = first.ChunkSize, first.Chunks
	if err := describe(ctx, &e, p, first.file); err != nil {
		return Entry{}, err
	}
	parts, err := c.bringParts(ctx, client, &e, p, source, first)
	defer func() {
		for _, part := range parts {
			part.discard()
		}
	}()
	if err != nil {
		return Entry{}, err
	}
	if err := checkTarget(e, p.Unchecked); err != nil {
		return Entry{}, err
	}
	for _, part := range append(parts, first) {
		if err := c.keep(part); err != nil {
			return Entry{}, err
		}
	}
	return c.add(e)
}

// setSource sets the URL of the bytes; its folder is the allowed origin (M4).
func (b *brought) setSource(source string, origins []string) error {
	u, err := url.Parse(source)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return errors.New("the URL must be https, without user and fragment")
	}
	folder := *u
	folder.Path, folder.RawPath, folder.RawQuery = path.Dir(u.Path), "", ""
	if !strings.HasSuffix(folder.Path, "/") {
		folder.Path += "/"
	}
	b.URLs = []string{source}
	b.Origins = append([]string{folder.String()}, origins...)
	return nil
}

// take copies the bytes into a file of the store's folder, and computes digest and length.
func (c *Catalogue) take(ctx context.Context, client *http.Client, b *brought, source string, remote bool) (file string, err error) {
	in, err := open(ctx, client, source, remote)
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := os.CreateTemp(c.place.Path("artifacts"), ".incoming-*")
	if err != nil {
		return "", fmt.Errorf("storing the artifact: %w", err)
	}
	defer func() {
		err = errors.Join(err, out.Close())
		if err != nil {
			os.Remove(out.Name())
		}
	}()
	hash := sha256.New()
	if b.Length, err = io.Copy(io.MultiWriter(out, hash), in); err != nil {
		return "", fmt.Errorf("storing the artifact: %w", err)
	}
	b.SHA256 = hex.EncodeToString(hash.Sum(nil))
	if err := out.Sync(); err != nil {
		return "", fmt.Errorf("storing the artifact: %w", err)
	}
	return out.Name(), nil
}

func open(ctx context.Context, client *http.Client, source string, remote bool) (io.ReadCloser, error) {
	if !remote {
		f, err := os.Open(source)
		if err != nil {
			return nil, fmt.Errorf("opening the artifact: %w", err)
		}
		return f, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return nil, fmt.Errorf("asking for the artifact: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking for the artifact: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("asking for the artifact: the server answers %s", resp.Status)
	}
	return resp.Body, nil
}

// describe checks the file: a model must be GGUF, a runtime an archive with its program.
func describe(ctx context.Context, e *Entry, p Publication, file string) error {
	if p.Kind == messages.KindModel {
		return checkGGUF(file, p.Unchecked)
	}
	if p.FilesOf != "" {
		file = p.FilesOf
	}
	listed, err := archive.List(ctx, file)
	if err != nil {
		return err
	}
	e.Custom.Platform, e.Custom.Format, e.Custom.Files = p.Platform, listed.Format, listed.Files
	if e.Custom.Executable, err = listed.Program(p.Executable); err != nil {
		return fmt.Errorf("%w: name the program with --executable", err)
	}
	if p.Unchecked {
		return nil
	}
	return listed.Check(e.Custom.Executable)
}

func checkGGUF(file string, unchecked bool) error {
	f, err := os.Open(filepath.Clean(file))
	if err != nil {
		return fmt.Errorf("opening the model: %w", err)
	}
	defer f.Close()
	magic := make([]byte, 4)
	if _, err := io.ReadFull(f, magic); !unchecked && (err != nil || !bytes.Equal(magic, []byte("GGUF"))) {
		return errors.New("the model is no GGUF file")
	}
	return nil
}

// addChunks computes the digests of the file's chunks (M14).
func (b *brought) addChunks(size int64) error {
	if size == 0 {
		size = artifact.ChunkSize(b.Length)
	}
	if size <= 0 {
		return nil
	}
	f, err := os.Open(b.file)
	if err != nil {
		return fmt.Errorf("opening the artifact: %w", err)
	}
	defer f.Close()
	b.ChunkSize = size
	for left := b.Length; left > 0; left -= size {
		hash := sha256.New()
		if _, err := io.CopyN(hash, f, min(left, size)); err != nil {
			return fmt.Errorf("reading the artifact: %w", err)
		}
		b.Chunks = append(b.Chunks, hex.EncodeToString(hash.Sum(nil)))
	}
	return nil
}
