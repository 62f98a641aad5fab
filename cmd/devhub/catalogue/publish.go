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
		Kind: p.Kind, Name: p.Name, Version: p.Version, Default: p.Default, Embedding: p.Embedding,
	}}
	remote := strings.Contains(source, "://")
	if remote {
		if err := setSource(&e, source, p.Origins); err != nil {
			return Entry{}, err
		}
	} else if len(p.Origins) > 0 {
		return Entry{}, errors.New("origins are for a URL: a file is served by this hub")
	}
	file, err := c.take(ctx, client, &e, source, remote)
	if err != nil {
		return Entry{}, err
	}
	defer os.Remove(file)
	if err := describe(ctx, &e, p, file); err != nil {
		return Entry{}, err
	}
	if err := addChunks(&e, p.ChunkSize, file); err != nil {
		return Entry{}, err
	}
	if !remote {
		e.Stored = true
		if err := os.Rename(file, c.ArtifactFile(e.SHA256)); err != nil {
			return Entry{}, fmt.Errorf("storing the artifact: %w", err)
		}
	}
	return c.add(e)
}

// setSource sets the URL of the bytes; its folder is the allowed origin (M4).
func setSource(e *Entry, source string, origins []string) error {
	u, err := url.Parse(source)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return errors.New("the URL must be https, without user and fragment")
	}
	folder := *u
	folder.Path, folder.RawPath, folder.RawQuery = path.Dir(u.Path), "", ""
	if !strings.HasSuffix(folder.Path, "/") {
		folder.Path += "/"
	}
	e.Custom.URLs = []string{source}
	e.Custom.Origins = append([]string{folder.String()}, origins...)
	return nil
}

// take copies the bytes into a file of the store's folder, and computes digest and length.
func (c *Catalogue) take(ctx context.Context, client *http.Client, e *Entry, source string, remote bool) (file string, err error) {
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
	if e.Length, err = io.Copy(io.MultiWriter(out, hash), in); err != nil {
		return "", fmt.Errorf("storing the artifact: %w", err)
	}
	e.SHA256 = hex.EncodeToString(hash.Sum(nil))
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
func addChunks(e *Entry, size int64, file string) error {
	if size == 0 {
		size = artifact.ChunkSize(e.Length)
	}
	if size <= 0 {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("opening the artifact: %w", err)
	}
	defer f.Close()
	e.Custom.ChunkSize = size
	for left := e.Length; left > 0; left -= size {
		hash := sha256.New()
		if _, err := io.CopyN(hash, f, min(left, size)); err != nil {
			return fmt.Errorf("reading the artifact: %w", err)
		}
		e.Custom.Chunks = append(e.Custom.Chunks, hex.EncodeToString(hash.Sum(nil)))
	}
	return nil
}
