package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sync/semaphore"

	"companion/messages"
)

// nowhere is a client that accepts and drops everything.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header         { return n.header }
func (n nowhere) WriteHeader(int)             {}
func (n nowhere) Write(p []byte) (int, error) { return len(p), nil }

// L6b, T7, T16: answers that are not streams share a budget of memory, whatever the runtime announces. Those
// that do not fit are refused so that the client asks again; the heap stays within the budget; and when the
// answers are gone all of it is free.
func TestAnswersShareABudget(t *testing.T) {
	const budget, length, calls = 12 << 20, 4 << 20, 16
	for name, head := range map[string]string{
		"with a length":     fmt.Sprintf("Content-Length: %d\r\n", length),
		"without a length":  "Connection: close\r\n",
		"announces endless": "Content-Length: 4611686018427387904\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			options := script(func(c net.Conn) {
				readRequest(c)
				_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"+head+"\r\n")
				for piece := make([]byte, 64<<10); err == nil; {
					if _, err = c.Write(piece); name == "without a length" && err == nil {
						// 4 MiB and then the end of the connection
						for range length/len(piece) - 1 {
							if _, err = c.Write(piece); err != nil {
								return
							}
						}
						return
					}
				}
			})
			options.AnswerMemory, options.AnswerBytes = budget, length
			r := New(options)
			defer r.Close()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			before, peak := m.HeapInuse, uint64(0)
			var all sync.WaitGroup
			var whole, refused, tooLong atomic.Int32
			for range calls {
				all.Go(func() {
					switch result := r.Do(t.Context(), nowhere{http.Header{}}, Call{Target: there, Path: "/v1/x", Body: []byte("{}")}); result.Reason {
					case messages.ReasonOK:
						whole.Add(1)
					case messages.ReasonQueueFull:
						refused.Add(1)
					case messages.ReasonUpstreamFailed:
						tooLong.Add(1)
					default:
						t.Errorf("got %+v, want an answer, or a refusal for want of memory or for its length", result)
					}
				})
			}
			done := make(chan struct{})
			go func() { all.Wait(); close(done) }()
			for running := true; running; {
				select {
				case <-done:
					running = false
				case <-time.After(time.Millisecond):
				}
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapInuse)
			}
			t.Logf("%d whole, %d refused, %d too long; the heap grew by %d KiB", whole.Load(), refused.Load(), tooLong.Load(), (max(peak, before)-before)>>10)
			if name != "announces endless" && whole.Load() == 0 || refused.Load() == 0 {
				t.Errorf("got %d whole and %d refused answers, want some of each", whole.Load(), refused.Load())
			}
			// The collector lets garbage lie about as long again as what lives, and the pipes hold pieces.
			if grown := max(peak, before) - before; grown > 3*budget {
				t.Errorf("the heap grew by %d MiB, want at most three times the budget of %d MiB", grown>>20, budget>>20)
			}
			if !r.answers.TryAcquire(budget) {
				t.Error("got reserved memory after the last answer, want none")
			}
		})
	}
}

// L6b: a buffer counts exactly its room, at any moment and for any reader, and gives it back.
func TestAnswerBufferCounts(t *testing.T) {
	for _, size := range []int{0, 1, firstAnswer - 1, firstAnswer, firstAnswer + 1, 100_000, keptAnswer, keptAnswer + 1, 3 << 20} {
		const budget, limit = 16 << 20, 3 << 20
		sem := semaphore.NewWeighted(budget)
		b := newAnswerBuffer(sem)
		want := bytes.Repeat([]byte("x"), size)
		if err := b.readFrom(iotest.HalfReader(bytes.NewReader(want)), limit); err != nil || !bytes.Equal(b.bytes, want) {
			t.Errorf("%d bytes: got %d, %v, want all", size, len(b.bytes), err)
		}
		if rest := int64(budget - cap(b.bytes)); !sem.TryAcquire(rest) || sem.TryAcquire(1) {
			t.Errorf("%d bytes: got a count of other than %d bytes of room, want that count", size, cap(b.bytes))
		} else {
			sem.Release(rest)
		}
		b.release()
		if !sem.TryAcquire(budget) {
			t.Errorf("%d bytes: got memory that is counted after the release, want none", size)
		}
	}
	b := newAnswerBuffer(semaphore.NewWeighted(1 << 20))
	defer b.release()
	if err := b.readFrom(bytes.NewReader(make([]byte, 101)), 100); !errors.Is(err, errLongAnswer) {
		t.Errorf("101 of 100 bytes: got %v, want %v", err, errLongAnswer)
	}
}

// R3: each new connection is to the runtime's process, or the request is refused and not sent.
func TestForeignBackEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	served := make(chan string, 9)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served <- r.URL.Path
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
	})}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(l) }()
	defer func() { _ = server.Close(); <-ended }()
	r := New(Options{})
	defer r.Close()
	ask := func(pid int, want messages.Reason) {
		t.Helper()
		// A launch of its own each time, so that no idle connection is used.
		target := Target{Launch: r.pool.target.Launch + 1, BackEnd: messages.BackEnd{Network: "unix", Address: path, PID: pid}}
		got := r.Do(t.Context(), httptest.NewRecorder(), Call{Target: target, Path: "/v1/x", Body: []byte("{}")})
		if got.Reason != want || got.Sent != (want == messages.ReasonOK) {
			t.Errorf("process %d: got %+v, want %s", pid, got, want)
		}
		if _, got := r.Fetch(t.Context(), Call{Target: target, Path: "/v1/models"}); got.Reason != want {
			t.Errorf("process %d, fetching: got %+v, want %s", pid, got, want)
		}
	}
	ask(os.Getpid(), messages.ReasonOK)
	<-served
	<-served
	ask(os.Getppid(), messages.ReasonBackendUnreachable)
	ask(1, messages.ReasonBackendUnreachable)
	if len(served) != 0 {
		t.Errorf("got a request served by a foreign process, want none sent")
	}
}
