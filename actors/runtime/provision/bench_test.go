//go:build unix

package provision

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"companion/adapters/artifact"
	"companion/adapters/runtime/download"
	"companion/adapters/runtime/store"
	"companion/messages"
)

// benchHost names the file that this test binary serves as a host of its own, so that the host's memory does not count.
const benchHost = "PROVISION_BENCH_HOST"

// serveBench serves the file at /good, and at /wrong with one changed byte in the middle. It prints its URL and certificate.
func serveBench(file string) {
	info, err := os.Stat(file)
	if err != nil {
		panic(err)
	}
	serve := func(flip int64) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			f, err := os.Open(file)
			if err != nil {
				panic(err)
			}
			defer f.Close()
			w.Header().Set("Content-Type", "application/octet-stream")
			http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(flipped{f, flip}, 0, info.Size()))
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/good", serve(-1))
	mux.HandleFunc("/wrong", serve(info.Size()/2))
	server := httptest.NewTLSServer(mux)
	fmt.Println(server.URL)
	_ = pem.Encode(os.Stdout, &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	_ = os.Stdout.Close()
	_, _ = io.Copy(io.Discard, os.Stdin) // until the benchmark ends
}

type flipped struct {
	io.ReaderAt
	at int64
}

func (f flipped) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.ReaderAt.ReadAt(p, off)
	if i := f.at - off; f.at >= 0 && i >= 0 && i < int64(n) {
		p[i] ^= 1
	}
	return n, err
}

// benchFile is the artifact of the benchmarks, with its host.
type benchFile struct {
	artifact messages.Artifact
	url, ca  string
	client   *download.Client
}

// newBench makes a file of BENCH_BYTES (256 MiB if it is not set), with its chunks, and a host that serves it.
func newBench(b *testing.B) *benchFile {
	b.Helper()
	size := int64(256 << 20)
	if text := os.Getenv("BENCH_BYTES"); text != "" {
		var err error
		size, err = strconv.ParseInt(text, 10, 64)
		must(b, err)
	}
	dir := b.TempDir()
	path := filepath.Join(dir, "file")
	a := messages.Artifact{Name: "bench", Version: "1", Kind: messages.KindModel, Size: size, ChunkSize: artifact.ChunkSize(size), PrivateHosts: []string{"127.0.0.1"}}
	f, err := os.Create(path)
	must(b, err)
	whole, block := sha256.New(), make([]byte, a.ChunkSize)
	for at := int64(0); at < size; at += a.ChunkSize {
		for i := range block {
			block[i] = byte(at>>20) + byte(i*7)
		}
		part := block[:min(a.ChunkSize, size-at)]
		_, err := f.Write(part)
		must(b, err)
		_, _ = whole.Write(part)
		a.Chunks = append(a.Chunks, sha256.Sum256(part))
	}
	must(b, f.Sync(), f.Close())
	a.SHA256 = [32]byte(whole.Sum(nil))

	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), benchHost+"="+path)
	out, err := cmd.StdoutPipe()
	must(b, err)
	in, err := cmd.StdinPipe()
	must(b, err, cmd.Start())
	b.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	reader := bufio.NewReader(out)
	url, err := reader.ReadString('\n')
	must(b, err)
	certificate, err := io.ReadAll(reader)
	must(b, err)
	x := &benchFile{artifact: a, url: strings.TrimSpace(url), ca: filepath.Join(dir, "ca.pem")}
	must(b, os.WriteFile(x.ca, certificate, 0o600))
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(certificate) {
		b.Fatalf("got the certificate %q, want PEM", certificate)
	}
	x.client = download.New(roots, 0)
	x.artifact.URLs, x.artifact.Origins = []string{x.url + "/good"}, []string{x.url + "/"}
	debug.FreeOSMemory()
	return x
}

// counting counts the bytes that transfers deliver, and ends ctx at a limit.
type counting struct {
	*download.Client
	bytes atomic.Int64
	limit int64
	stop  context.CancelFunc
}

type countingSink struct {
	download.Sink
	c *counting
}

func (s countingSink) Write(p []byte) (int, error) {
	if n := s.c.bytes.Add(int64(len(p))); s.c.limit > 0 && n >= s.c.limit {
		s.c.stop()
	}
	return s.Sink.Write(p)
}

func (c *counting) Fetch(ctx context.Context, req download.Request, sink download.Sink) error {
	return c.Client.Fetch(ctx, req, countingSink{sink, c})
}

// fetch downloads, verifies and syncs the artifact into a store in dir. It returns the bytes that arrived. A limit cuts it.
func (x *benchFile) fetch(b *testing.B, dir string, a messages.Artifact, limit int64) (int64, error) {
	b.Helper()
	s, err := store.Open(filepath.Join(dir, "data"))
	must(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c := &counting{Client: x.client, limit: limit, stop: cancel}
	w := worker{Deps: Deps{Store: s, Download: c, Log: zap.NewNop()}, artifact: a, options: options{mayFetch: true}, transfer: new(atomic.Pointer[counter])}
	err = w.fetch(ctx)
	return c.bytes.Load(), err
}

// resident is the resident memory of this process in bytes; read is what it has read, from files and connections.
func resident(b *testing.B) int64 { return procField(b, "/proc/self/status", "VmRSS:") << 10 }
func read(b *testing.B) int64     { return procField(b, "/proc/self/io", "rchar:") }

func procField(b *testing.B, file, name string) int64 {
	data, err := os.ReadFile(file)
	must(b, err)
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			must(b, err)
			return n
		}
	}
	b.Fatalf("%s: got no %s, want one", file, name)
	return 0
}

func spread(b *testing.B, ratios []float64, what string) {
	slices.Sort(ratios)
	b.ReportMetric(ratios[0], what+"-min")
	b.ReportMetric(ratios[len(ratios)/2], what+"-median")
	b.ReportMetric(ratios[len(ratios)-1], what+"-max")
}

// M14, M5: the rate of a download, verified and synced, against `curl -o` of the same file, alternating, and against the rate of
// SHA-256; and by how much the resident memory grows meanwhile.
func BenchmarkDownload(b *testing.B) {
	x := newBench(b)
	var against, hashed []float64
	var most int64
	for b.Loop() {
		dir := b.TempDir()
		began := time.Now()
		out, err := exec.Command("curl", "--silent", "--show-error", "--fail", "--cacert", x.ca, "-o", filepath.Join(dir, "curl"), x.artifact.URLs[0]).CombinedOutput()
		if err != nil {
			b.Fatalf("curl: %v: %s", err, out)
		}
		curl := time.Since(began)
		must(b, os.Remove(filepath.Join(dir, "curl")))

		before, done := resident(b), make(chan struct{})
		sampled := make(chan int64, 1)
		go func() {
			peak := int64(0)
			for {
				select {
				case <-done:
					sampled <- peak
					return
				case <-time.After(10 * time.Millisecond):
					peak = max(peak, resident(b))
				}
			}
		}()
		began = time.Now()
		_, err = x.fetch(b, dir, x.artifact, 0)
		own := time.Since(began)
		close(done)
		must(b, err)
		most = max(most, <-sampled-before)
		must(b, os.RemoveAll(dir))

		began = time.Now()
		digest, block := sha256.New(), make([]byte, 1<<20)
		for range x.artifact.Size >> 20 {
			_, _ = digest.Write(block)
		}
		sha := time.Since(began)
		against = append(against, curl.Seconds()/own.Seconds())
		hashed = append(hashed, sha.Seconds()/own.Seconds())
		b.ReportMetric(float64(x.artifact.Size)/1e6/own.Seconds(), "MB/s")
		b.ReportMetric(float64(x.artifact.Size)/1e6/curl.Seconds(), "curl-MB/s")
	}
	spread(b, against, "of-curl")
	spread(b, hashed, "of-sha256")
	b.ReportMetric(float64(most)/(1<<20), "growth-MiB")
}

// M14: a download that is cut at 90 % fetches the rest, and reads no verified byte again.
func BenchmarkResume(b *testing.B) {
	x := newBench(b)
	for b.Loop() {
		dir := b.TempDir()
		size := x.artifact.Size
		if _, err := x.fetch(b, dir, x.artifact, size/10*9); err == nil {
			b.Fatal("got no error, want the cut")
		}
		before := read(b)
		bytes, err := x.fetch(b, dir, x.artifact, 0)
		must(b, err)
		b.ReportMetric(float64(bytes)/float64(size)*100, "fetched-%")
		// The new bytes are read twice, from the connection and by the digest, and of the chunk that was cut the old ones too.
		b.ReportMetric(float64(read(b)-before)/float64(size)*100, "read-%")
		must(b, os.RemoveAll(dir))
	}
}

// M14: one wrong chunk of one mirror costs one more chunk.
func BenchmarkWrongChunk(b *testing.B) {
	x := newBench(b)
	a := x.artifact
	a.URLs = []string{x.url + "/wrong", x.url + "/good"}
	for b.Loop() {
		dir := b.TempDir()
		bytes, err := x.fetch(b, dir, a, 0)
		must(b, err)
		b.ReportMetric(float64(bytes-a.Size)/float64(a.ChunkSize), "chunks-again")
		must(b, os.RemoveAll(dir))
	}
}
