package server

import (
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"time"

	"companion/cmd/devhub/fault"
)

const (
	// surplus is the number of bytes that the faults truncated and extended remove or add.
	surplus = 1000
	// slowStep and slowPause limit the rate to about one MiB per second.
	slowStep  = 64 << 10
	slowPause = 62 * time.Millisecond
	// cutFloor is the number of bytes that a cut connection sends before it breaks, so that resuming makes progress.
	cutFloor = 64 << 10
)

var (
	digestRule = regexp.MustCompile(`^[0-9a-f]{64}$`)
	errNoFile  = errors.New("no such file")
)

// artifactRoutes are the routes of the artifact host. The manifest is among them only while the fault that redirects to it
// is on.
func (h *Hub) artifactRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /artifacts/{digest}", h.artifact)
	mux.HandleFunc("GET /artifacts-elsewhere/{digest}", h.serveArtifact)
	mux.HandleFunc("GET "+manifestPath+"{file}", func(w http.ResponseWriter, r *http.Request) {
		if !h.faults.Has(fault.ManifestFromArtifact) {
			http.NotFound(w, r)
			return
		}
		h.serveManifest(w, r)
	})
	return mux
}

func (h *Hub) artifact(w http.ResponseWriter, r *http.Request) {
	switch {
	case h.faults.Has(fault.ArtifactMissing):
		http.NotFound(w, r)
	case h.faults.Has(fault.ArtifactError):
		http.Error(w, "this host simulates artifact-error", http.StatusServiceUnavailable)
	case h.faults.Has(fault.RedirectElsewhere):
		http.Redirect(w, r, h.place.HubURL()+r.URL.Path, http.StatusFound)
	default:
		h.serveArtifact(w, r)
	}
}

// elsewhere serves artifacts from the hub's own host, only for the faults that need it: a client that wrongly requests
// them there succeeds, and the test detects it.
func (h *Hub) elsewhere(w http.ResponseWriter, r *http.Request) {
	if h.faults.Has(fault.RedirectElsewhere) || h.faults.Has(fault.SameHost) {
		h.serveArtifact(w, r)
		return
	}
	http.NotFound(w, r)
}

func (h *Hub) serveArtifact(w http.ResponseWriter, r *http.Request) {
	digest := r.PathValue("digest")
	if !digestRule.MatchString(digest) {
		http.NotFound(w, r)
		return
	}
	file, err := os.Open(h.catalogue.ArtifactFile(digest))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		http.Error(w, "the artifact cannot be read", http.StatusInternalServerError)
		return
	}
	content := h.spoiled(file, info.Size())
	// The ETag is opaque and stable; the digest itself is in the path already.
	w.Header().Set("ETag", strconv.Quote(digest[:32]))
	if h.faults.Has(fault.ChangedETag) {
		w.Header().Set("ETag", strconv.Quote(rand.Text()))
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if h.faults.Has(fault.NoRange) {
		r.Header.Del("Range")
		r.Header.Del("If-Range")
	}
	out := http.ResponseWriter(w)
	if h.faults.Has(fault.Slow) {
		out = &slowWriter{ResponseWriter: out, done: r.Context().Done()}
	}
	if h.faults.Has(fault.Cut) {
		out = &cutWriter{ResponseWriter: out}
	}
	http.ServeContent(out, r, "", info.ModTime(), content)
}

// spoiled returns the artifact with the bytes that the faults change.
func (h *Hub) spoiled(file *os.File, size int64) io.ReadSeeker {
	s := &spoiler{file: file, real: size, size: size, flip: -1}
	switch {
	case h.faults.Has(fault.Truncated):
		s.size = max(0, size-surplus)
	case h.faults.Has(fault.Extended):
		s.size = size + surplus
	}
	if h.faults.Has(fault.FlippedByte) {
		s.flip = size / 2
	}
	return io.NewSectionReader(s, 0, s.size)
}

// spoiler reads a file with one byte changed, or zeros after its end.
type spoiler struct {
	file       *os.File
	real, size int64
	flip       int64 // offset of the changed byte, or -1
}

func (s *spoiler) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.file.ReadAt(p, off)
	if at := s.flip - off; s.flip >= 0 && at >= 0 && at < int64(n) {
		p[at] ^= 1
	}
	if errors.Is(err, io.EOF) && s.size > s.real {
		clear(p[n:])
		return len(p), nil
	}
	return n, err
}

// slowWriter writes small steps with pauses, and stops when the client has left.
type slowWriter struct {
	http.ResponseWriter
	done <-chan struct{}
}

func (w *slowWriter) Write(p []byte) (int, error) {
	sent := 0
	for sent < len(p) {
		step := p[sent:min(len(p), sent+slowStep)]
		n, err := w.ResponseWriter.Write(step)
		sent += n
		if err != nil {
			return sent, err
		}
		if err := http.NewResponseController(w.ResponseWriter).Flush(); err != nil {
			return sent, err
		}
		select {
		case <-time.After(slowPause):
		case <-w.done:
			return sent, io.ErrClosedPipe
		}
	}
	return sent, nil
}

// cutWriter closes the connection in the middle of the announced content.
type cutWriter struct {
	http.ResponseWriter
	left int64
}

func (w *cutWriter) WriteHeader(status int) {
	if n, err := strconv.ParseInt(w.Header().Get("Content-Length"), 10, 64); err == nil {
		w.left = n
		if n > cutFloor {
			w.left = n / 2
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if int64(len(p)) <= w.left {
		w.left -= int64(len(p))
		return w.ResponseWriter.Write(p)
	}
	if _, err := w.ResponseWriter.Write(p[:w.left]); err == nil {
		_ = http.NewResponseController(w.ResponseWriter).Flush()
	}
	panic(http.ErrAbortHandler)
}
