//go:build unix

package provision

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"companion/adapters/runtime/download"
	"companion/messages"
)

const chunkSize = 64 << 10

// inChunks adds the digests of the chunks of data.
func inChunks(a messages.Artifact, data []byte) messages.Artifact {
	a.ChunkSize = chunkSize
	for len(data) > 0 {
		n := min(len(data), chunkSize)
		a.Chunks = append(a.Chunks, sha256.Sum256(data[:n]))
		data = data[n:]
	}
	return a
}

// mirrors serves modelBytes by ranges, in steps, and counts what each URL sent.
type mirrors struct {
	mu    sync.Mutex
	sent  map[string]int
	fault func(req download.Request, at int64) error // before the byte at
	pace  func(req download.Request)                 // before each step
	data  map[string][]byte                          // by URL; modelBytes otherwise
}

const step = 4096

func (m *mirrors) Fetch(ctx context.Context, req download.Request, sink download.Sink) error {
	data := modelBytes
	if other, ok := m.data[req.URL]; ok {
		data = other
	}
	end := int64(len(data))
	if req.Length > 0 {
		end = req.Offset + req.Length
	}
	if err := sink.Begin(req.Offset, ""); err != nil {
		return err
	}
	for at := req.Offset; at < end; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if m.pace != nil {
			m.pace(req)
		}
		if m.fault != nil {
			if err := m.fault(req, at); err != nil {
				return err
			}
		}
		n, err := sink.Write(data[at:min(at+step, end)])
		m.mu.Lock()
		if m.sent == nil {
			m.sent = map[string]int{}
		}
		m.sent[req.URL] += n
		m.mu.Unlock()
		at += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *mirrors) total() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, sent := range m.sent {
		n += sent
	}
	return n
}

const (
	goodURL = "https://models.example/m/g"
	badURL  = "https://bad.example/g"
)

func twoMirrors() messages.Artifact {
	a := inChunks(gemma(), modelBytes)
	a.URLs = []string{badURL, goodURL}
	a.Origins = append(a.Origins, "https://bad.example")
	return a
}

func startChunks(t *testing.T, m *mirrors, a messages.Artifact) *harness {
	t.Helper()
	h := newHarness(t, m)
	unpinned(t, h)
	h.start()
	h.inbox <- messages.Want{Model: a, MayFetch: true}
	return h
}

func (h *harness) onDisk(a messages.Artifact) {
	h.t.Helper()
	got, ok := (<-h.lifecycle).(messages.ArtifactsVerified)
	if !ok {
		h.t.Fatalf("got %#v, want ArtifactsVerified", got)
	}
	data, err := os.ReadFile(got.Model.Path)
	must(h.t, err)
	if sha256.Sum256(data) != a.SHA256 {
		h.t.Fatalf("got a file of %d bytes with another digest, want the model", len(data))
	}
}

// M14, T6: a mirror that sends one wrong chunk is left out and named. Only this chunk is fetched again, from the other mirror.
func TestWrongChunkOfMirror(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wrong := bytes.Clone(modelBytes)
		wrong[2*chunkSize+100] ^= 1
		m := &mirrors{data: map[string][]byte{badURL: wrong}}
		h := startChunks(t, m, twoMirrors())
		h.onDisk(gemma())
		if got, want := m.total(), len(modelBytes)+chunkSize; got > want {
			t.Errorf("got %d bytes fetched, want at most %d", got, want)
		}
		if m.sent[badURL] != 3*chunkSize {
			t.Errorf("the bad mirror: got %d bytes fetched, want %d", m.sent[badURL], 3*chunkSize)
		}
		left := h.logs.FilterMessage("mirror left out").All()
		if len(left) != 1 || left[0].ContextMap()["mirror"] != "bad.example" || left[0].ContextMap()["reason"] != "digest_mismatch" {
			t.Errorf("log: got %v, want one entry that names bad.example with digest_mismatch", left)
		}
		h.stop()
	})
}

// M14, T6: a mirror that sends a wrong chunk and breaks off before its last byte is found by comparison with the right chunk. It
// is left out and named; the mirror that completed the chunk, and one that breaks off with right bytes, are not.
func TestWrongPartOfMirror(t *testing.T) {
	for _, wrong := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			m := &mirrors{data: map[string][]byte{}, fault: func(req download.Request, at int64) error {
				if req.URL == badURL && at%chunkSize == chunkSize-step {
					return failing(false)
				}
				return nil
			}}
			if wrong {
				m.data[badURL] = bytes.Repeat([]byte("x"), len(modelBytes))
			}
			h := startChunks(t, m, twoMirrors())
			h.onDisk(gemma())
			left := h.logs.FilterMessage("mirror left out").All()
			switch {
			case !wrong && len(left) != 0:
				t.Errorf("right bytes: got %v in the log, want no mirror left out", left)
			case wrong && (len(left) != 1 || left[0].ContextMap()["mirror"] != "bad.example" || left[0].ContextMap()["reason"] != "digest_mismatch"):
				t.Errorf("wrong bytes: got %v in the log, want one entry that names bad.example with digest_mismatch", left)
			}
			h.stop()
		})
	}
}

// M14, M6: with one mirror a wrong chunk ends the download with digest_mismatch. The chunks before it stay on disk.
func TestWrongChunkOfOnlyMirror(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wrong := bytes.Clone(modelBytes)
		wrong[2*chunkSize+100] ^= 1
		a := inChunks(gemma(), modelBytes)
		m := &mirrors{data: map[string][]byte{goodURL: wrong}}
		h := startChunks(t, m, a)
		if got, want := <-h.lifecycle, loss(a, messages.ReasonDigestMismatch); got != want {
			t.Fatalf("got %#v, want %#v", got, want)
		}
		if held := h.deps.Store.Held(t.Context(), a).PartialBytes; held != 2*chunkSize {
			t.Errorf("got %d bytes on disk, want %d", held, 2*chunkSize)
		}
		m.data = nil
		h.inbox <- messages.Want{Model: a, MayFetch: true}
		h.onDisk(a)
		if got, want := m.total(), len(modelBytes)+chunkSize; got != want {
			t.Errorf("got %d bytes fetched, want %d", got, want)
		}
		h.stop()
	})
}

// M14, M8: a download is cut more than a hundred times, and after each cut goes on at the next byte: no byte is fetched twice.
func TestCutsOfChunks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := bytes.Repeat([]byte("weights "), chunkSize)
		a := gemma()
		a.Size, a.SHA256 = int64(len(data)), sha256.Sum256(data)
		cuts, last := 0, int64(-1)
		m := &mirrors{data: map[string][]byte{goodURL: data}}
		m.fault = func(_ download.Request, at int64) error {
			if at <= last {
				return nil
			}
			last = at
			cuts++
			return failing(false)
		}
		h := startChunks(t, m, inChunks(a, data))
		h.onDisk(a)
		if cuts < 100 || m.total() != len(data) {
			t.Errorf("got %d cuts and %d bytes fetched, want at least 100 and %d", cuts, m.total(), len(data))
		}
		h.stop()
	})
}

// M14, M8: a mirror that fails permanently, or for longer than patience, is left out; the download goes on with the other.
func TestMirrorFails(t *testing.T) {
	for _, permanent := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			m := &mirrors{fault: func(req download.Request, _ int64) error {
				if req.URL == badURL {
					return failing(permanent)
				}
				return nil
			}}
			began := time.Now()
			h := startChunks(t, m, twoMirrors())
			h.onDisk(gemma())
			if took := time.Since(began); took > time.Second {
				t.Errorf("permanent %t: got the model after %v, want at once", permanent, took)
			}
			h.stop()
		})
	}
}

// M8: without a mirror that answers, the download ends after patience with the reason, and keeps its bytes.
func TestOutageOfChunks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		m := &mirrors{fault: func(_ download.Request, at int64) error {
			if at >= 2*chunkSize+step && down.Load() {
				return failing(false)
			}
			return nil
		}}
		down.Store(true)
		a := twoMirrors()
		h := startChunks(t, m, a)
		if got, want := <-h.lifecycle, loss(a, messages.ReasonTransferFailed); got != want {
			t.Fatalf("got %#v, want %#v", got, want)
		}
		if held := h.deps.Store.Held(t.Context(), a).PartialBytes; held != 2*chunkSize+step {
			t.Errorf("got %d bytes on disk, want %d", held, 2*chunkSize+step)
		}
		down.Store(false)
		h.onDisk(a)
		if m.total() != len(modelBytes) {
			t.Errorf("got %d bytes fetched, want %d", m.total(), len(modelBytes))
		}
		h.stop()
	})
}

// M14, M6: a byte of a verified chunk that changes on disk between two transfers costs this chunk only, and is never served.
func TestAlteredPartialFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		m := &mirrors{fault: func(_ download.Request, at int64) error {
			if at >= 3*chunkSize && !up.Load() {
				return failing(true)
			}
			return nil
		}}
		a := inChunks(gemma(), modelBytes)
		h := startChunks(t, m, a)
		if got, ok := (<-h.lifecycle).(messages.IntegrityLost); !ok {
			t.Fatalf("got %#v, want IntegrityLost", got)
		}
		partial, err := os.OpenFile(filepath.Join(h.dir, "partial", hex.EncodeToString(a.SHA256[:])+".part"), os.O_WRONLY, 0)
		must(t, err)
		_, err = partial.WriteAt([]byte("X"), chunkSize+1000)
		must(t, err, partial.Close())
		up.Store(true)
		h.inbox <- messages.Want{Model: a, MayFetch: true}
		h.onDisk(a)
		if got, want := m.total(), len(modelBytes)+chunkSize; got != want {
			t.Errorf("got %d bytes fetched, want %d", got, want)
		}
		h.stop()
	})
}

// M14: when each connection is slow, up to four are used. When the line is full, no more than one stays.
func TestConnections(t *testing.T) {
	const size = 400 * chunkSize
	data := bytes.Repeat([]byte("weights "), size/8)
	a := gemma()
	a.Size, a.SHA256 = size, sha256.Sum256(data)
	a = inChunks(a, data)
	for name, c := range map[string]struct {
		shared      bool
		least, most int // connections
		within      time.Duration
	}{
		"slow connections": {false, maxLines, maxLines, 60 * time.Second},
		"full line":        {true, 1, 2, 110 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const rate = 256 << 10 // bytes per second
				line := make(chan struct{}, 1)
				var active, most atomic.Int32
				m := &mirrors{data: map[string][]byte{goodURL: data}}
				m.pace = func(download.Request) {
					if n := active.Add(1); n > most.Load() {
						most.Store(n)
					}
					if c.shared {
						line <- struct{}{}
						defer func() { <-line }()
					}
					time.Sleep(time.Second * step / rate)
					active.Add(-1)
				}
				began := time.Now()
				h := startChunks(t, m, a)
				h.onDisk(a)
				if n := int(most.Load()); n < c.least || n > c.most {
					t.Errorf("got %d connections, want %d to %d", n, c.least, c.most)
				}
				if took := time.Since(began); took > c.within {
					t.Errorf("got the model after %v, want it within %v", took, c.within)
				}
				if m.total() != size {
					t.Errorf("got %d bytes fetched, want %d", m.total(), size)
				}
				h.stop()
			})
		})
	}
}

// M14, T6: a mirror that is almost silent does not hold up a download that another one can finish.
func TestSlowMirror(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &mirrors{pace: func(req download.Request) {
			if req.URL == badURL {
				time.Sleep(3 * time.Second) // above the limit of a stall: 32 KiB in 30 s
			} else {
				time.Sleep(100 * time.Millisecond)
			}
		}}
		began := time.Now()
		h := startChunks(t, m, twoMirrors())
		h.onDisk(gemma())
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("got the model after %v, want it within 30s", took)
		}
		if m.total() > len(modelBytes)+2*step {
			t.Errorf("got %d bytes fetched, want %d", m.total(), len(modelBytes))
		}
		h.stop()
	})
}

// M14: over TLS, with a server that serves ranges and one that does not.
func TestChunksOverTLS(t *testing.T) {
	for name, fault := range map[string]http.HandlerFunc{
		"ranges": nil,
		"no ranges": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(modelBytes)))
			_, _ = w.Write(modelBytes)
		},
	} {
		t.Run(name, func(t *testing.T) {
			server, h := fetchHarness(t)
			unpinned(t, h)
			server.fault = fault
			a := inChunks(server.model("g", modelBytes), modelBytes)
			h.start()
			h.inbox <- messages.Want{Model: a, MayFetch: true}
			h.verified()
			if n := server.asked("/m/g"); fault != nil && n != 1 {
				t.Errorf("got %d requests, want 1", n)
			}
			server.mu.Lock()
			defer server.mu.Unlock()
			if want := fmt.Sprintf("bytes=0-%d", 4*chunkSize-1); server.ranges[0] != want {
				t.Errorf("the first Range: got %q, want %q", server.ranges[0], want)
			}
		})
	}
}

// M6, T6: a host whose file has another length ends the download with size_mismatch, and no byte of it is kept.
func TestChunksOfAnotherLength(t *testing.T) {
	server, h := fetchHarness(t)
	unpinned(t, h)
	a := inChunks(server.model("g", modelBytes), modelBytes)
	server.files["/m/g"] = modelBytes[:300_000]
	h.start()
	h.inbox <- messages.Want{Model: a, MayFetch: true}
	h.lost(loss(a, messages.ReasonSizeMismatch))
	if held := h.deps.Store.Held(t.Context(), a); held.PartialBytes != 0 {
		t.Errorf("got %+v, want nothing on disk", held)
	}
}

// A9: a panic in one of several runs ends the actor, and the next incarnation continues with the chunks on disk.
func TestPanicOfRun(t *testing.T) {
	var failed atomic.Bool
	m := &mirrors{fault: func(_ download.Request, at int64) error {
		if at >= 3*chunkSize && failed.CompareAndSwap(false, true) {
			panic("a fault in the adapter")
		}
		return nil
	}}
	h := newHarness(t, m)
	unpinned(t, h)
	reply := make(chan messages.Reason, 1)
	a := inChunks(gemma(), modelBytes)
	h.inbox <- messages.Fetch{Artifact: a, Reply: reply}
	func() {
		defer func() {
			if p := recover(); p == nil {
				t.Fatal("Serve: got no panic, want one")
			}
		}()
		_ = New(h.deps).Serve(t.Context())
	}()
	if r := <-reply; r != messages.ReasonTransferFailed {
		t.Fatalf("got reply %s, want transfer_failed", r)
	}
	for len(h.lifecycle) > 0 {
		<-h.lifecycle // of the first start
	}
	h.start()
	h.inbox <- messages.Want{Model: a, MayFetch: true}
	h.onDisk(a)
	if m.total() != len(modelBytes) {
		t.Errorf("got %d bytes fetched, want %d", m.total(), len(modelBytes))
	}
}

// M14: a connection is added while the rate grows with it. A measurement does not count while a connection is idle or new.
func TestLines(t *testing.T) {
	now := time.Unix(0, 0)
	l := newLines(now, 0)
	bytes := int64(0)
	measure := func(rate int64, running int) int {
		now = now.Add(linesPeriod)
		bytes += rate * int64(linesPeriod/time.Second)
		l.measure(now, bytes, running)
		return l.limit
	}
	for i, c := range []struct {
		rate    int64
		running int
		want    int
	}{
		{100, 1, 1}, {100, 1, 2}, // settles, then tries a second connection
		{100, 1, 2}, {200, 2, 2}, {200, 2, 3}, // one was idle, settles, accepted
		{200, 3, 3}, {210, 3, 2}, // settles, rejected
		{200, 2, 2}, {200, 2, 2}, {200, 2, 2}, // waits for a minute
	} {
		if got := measure(c.rate, c.running); got != c.want {
			t.Fatalf("measurement %d: got %d connections, want %d", i, got, c.want)
		}
	}
	for range int(linesPause / linesPeriod) {
		measure(200, 2)
	}
	if l.limit != 3 {
		t.Fatalf("after a minute: got %d connections, want 3", l.limit)
	}
}
