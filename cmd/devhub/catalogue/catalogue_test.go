package catalogue

import (
	"archive/zip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"companion/cmd/devhub/place"
	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newCatalogue(t *testing.T) (*place.Place, *Catalogue) {
	t.Helper()
	p, err := place.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(p)
	if err != nil {
		t.Fatal(err)
	}
	return p, c
}

// M12: a zip archive is listed like a tar archive, including links and execute bits.
func TestPublishZip(t *testing.T) {
	_, c := newCatalogue(t)
	file := filepath.Join(t.TempDir(), "rt.zip")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w := zip.NewWriter(out)
	for _, entry := range []struct {
		name, content string
		mode          os.FileMode
	}{
		{"build/bin/", "", os.ModeDir | 0o755},
		{"build/bin/llama-server.exe", "program", 0o755},
		{"build/bin/libx.so", "libx.so.1", os.ModeSymlink | 0o777},
		{"build/bin/libx.so.1", "library", 0o644},
	} {
		h := &zip.FileHeader{Name: entry.name, Method: zip.Deflate}
		h.SetMode(entry.mode)
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(entry.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	e, err := c.Publish(t.Context(), http.DefaultClient,
		Publication{Kind: messages.KindRuntime, Name: "llama", Platform: "windows/amd64"}, file)
	if err != nil {
		t.Fatal(err)
	}
	want := []messages.TargetFile{
		{Path: "build/bin/llama-server.exe", SHA256: digest("program"), Size: 7, Executable: true},
		{Path: "build/bin/libx.so", Link: "libx.so.1"},
		{Path: "build/bin/libx.so.1", SHA256: digest("library"), Size: 7},
	}
	if !slices.Equal(e.Custom.Files, want) || e.Custom.Format != "zip" || e.Custom.Executable != want[0].Path {
		t.Errorf("got %+v, want the files %+v", e.Custom, want)
	}
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// Publish reads a URL once for its digest and does not copy it. The allowed origins are its folder and the ones that the
// user adds (M4).
func TestPublishURL(t *testing.T) {
	const content = "GGUF and more"
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/models/m.gguf" {
			http.NotFound(w, r)
			return
		}
		w.Write([]byte(content))
	}))
	defer server.Close()
	p, c := newCatalogue(t)
	publication := Publication{Kind: messages.KindModel, Name: "far", Origins: []string{"https://store.example/blobs/"}}
	e, err := c.Publish(t.Context(), server.Client(), publication, server.URL+"/models/m.gguf")
	if err != nil {
		t.Fatal(err)
	}
	if e.SHA256 != digest(content) || e.Length != int64(len(content)) || e.Stored ||
		!slices.Equal(e.Custom.URLs, []string{server.URL + "/models/m.gguf"}) ||
		!slices.Equal(e.Custom.Origins, []string{server.URL + "/models/", "https://store.example/blobs/"}) {
		t.Errorf("got the entry %+v, want the URL with both origins", e)
	}
	if _, err := c.Publish(t.Context(), server.Client(), publication, server.URL+"/missing"); err == nil {
		t.Error("got nil for a missing file, want an error")
	}
	left, err := os.ReadDir(p.Path("artifacts"))
	if err != nil || len(left) != 0 {
		t.Errorf("got %v, %v in the store, want nothing left", left, err)
	}
}

// Concurrent publications are all in the list, because each holds the directory's lock.
func TestPublishAtOnce(t *testing.T) {
	p, c := newCatalogue(t)
	names := []string{"a", "b", "c", "d", "e"}
	var all sync.WaitGroup
	for _, name := range names {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte("GGUF"+name), 0o600); err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			if _, err := c.Publish(t.Context(), http.DefaultClient, Publication{Kind: messages.KindModel, Name: name}, file); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	data, err := os.ReadFile(p.Path("manifest", "timestamp.json"))
	if err != nil {
		t.Fatal(err)
	}
	var timestamp struct{ Signed struct{ Version int64 } }
	if err := json.Unmarshal(data, &timestamp); err != nil {
		t.Fatal(err)
	}
	if want := int64(1 + len(names)); timestamp.Signed.Version != want {
		t.Errorf("got version %d, want %d", timestamp.Signed.Version, want)
	}
	list, err := os.ReadFile(p.Path("manifest", "6.targets.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.Contains(string(list), `"model/`+name+`"`) {
			t.Errorf("got no %s in the list, want it", name)
		}
	}
}

// M14: the digests of the chunks are signed, for a size that is chosen or given.
func TestPublishChunks(t *testing.T) {
	_, c := newCatalogue(t)
	content := "GGUF" + strings.Repeat("x", 150_000)
	file := filepath.Join(t.TempDir(), "m.gguf")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for size, want := range map[int64][]string{
		0: nil, -1: nil, 1 << 16: {digest(content[:1<<16]), digest(content[1<<16 : 2<<16]), digest(content[2<<16:])},
	} {
		e, err := c.Publish(t.Context(), http.DefaultClient, Publication{Kind: messages.KindModel, Name: "m", ChunkSize: size}, file)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(e.Custom.Chunks, want) || (e.Custom.ChunkSize > 0) != (want != nil) {
			t.Errorf("chunk size %d: got %d, %v; want %v", size, e.Custom.ChunkSize, e.Custom.Chunks, want)
		}
	}
	if _, err := c.Publish(t.Context(), http.DefaultClient, Publication{Kind: messages.KindModel, Name: "m", ChunkSize: 1}, file); err == nil {
		t.Error("chunks of one byte: got nil, want an error")
	}
}

// M14: a large file has chunks without a flag.
func TestPublishChoosesChunks(t *testing.T) {
	_, c := newCatalogue(t)
	file := filepath.Join(t.TempDir(), "m.gguf")
	if err := errors.Join(os.WriteFile(file, []byte("GGUF"), 0o600), os.Truncate(file, 40<<20)); err != nil {
		t.Fatal(err)
	}
	e, err := c.Publish(t.Context(), http.DefaultClient, Publication{Kind: messages.KindModel, Name: "m"}, file)
	if err != nil || e.Custom.ChunkSize != 16<<20 || len(e.Custom.Chunks) != 3 {
		t.Errorf("got %d chunks of %d bytes, %v; want 3 of 16 MiB", len(e.Custom.Chunks), e.Custom.ChunkSize, err)
	}
}
