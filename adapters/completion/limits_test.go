package completion

import (
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// E5: a server that never answers, stops in the middle, or never ends takes a bounded time and bounded memory.
func TestLimits(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // net/http notices a closed connection only after the body was read
		<-r.Context().Done()
	}
	endless := func(contentType, piece string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", contentType)
			block := []byte(strings.Repeat(piece, 1+(64<<10)/len(piece)))
			for r.Context().Err() == nil {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}
	}
	pause := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		stream(w, delta("a", ""))
		<-r.Context().Done()
	}
	slow := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		stream(w)
		for tick := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-tick.C:
				_, _ = io.WriteString(w, "data: "+delta("a", "")+"\n\n")
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				tick.Stop()
				return
			}
		}
	}
	short := Limits{FirstByte: 50 * time.Millisecond, Idle: 50 * time.Millisecond, Answer: 1 << 20, Stream: 1 << 20}
	tests := []struct {
		name    string
		handler http.HandlerFunc
		code    string
		chat    bool
	}{
		{"no answer", hang, "timed_out", false},
		{"no stream", hang, "timed_out", true},
		{"a stream that stops", pause, "timed_out", true},
		{"a stream that goes on", slow, "timed_out", true},
		{"an endless answer", endless("application/json", `{"choices":[{"message":{"content":"`+strings.Repeat("x", 999)+" "), "answer_too_large", false},
		{"an endless stream", endless("text/event-stream", "data: "+delta("x", "")+"\n\n"), "answer_too_large", true},
		{"an endless event", endless("text/event-stream", "xxxxxxxx"), "answer_too_large", true},
		{"an endless head", func(w http.ResponseWriter, _ *http.Request) {
			for range 4096 {
				w.Header().Add("X-Filler", strings.Repeat("y", 1024))
			}
		}, "malformed_answer", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			limits := short
			if tt.name == "a stream that goes on" {
				limits.FirstByte, limits.Idle, limits.Whole = time.Minute, time.Minute, 100*time.Millisecond
			}
			if tt.code != "timed_out" {
				limits.FirstByte, limits.Idle = time.Minute, time.Minute // only the size limit ends it
			}
			c := client(t, Target{BaseURL: serve(t, tt.handler), Limits: limits})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			var err error
			if tt.chat {
				_, err = c.Chat(t.Context(), hello, Options{}, func(string) error { return nil })
			} else {
				_, err = c.Ask(t.Context(), hello, Options{}, 0)
			}
			runtime.ReadMemStats(&after)
			var failed *Error
			if !errors.As(err, &failed) || failed.Code != tt.code || !failed.Remote {
				t.Errorf("got %v, want the code %s of a remote target", err, tt.code)
			}
			if grown := int64(after.Sys) - int64(before.Sys); grown > 64<<20 {
				t.Errorf("memory grew by %d MiB, want at most 64", grown>>20)
			}
		})
	}
}

// E5: a request to a target that accepts no connection fails after Limits.Connect.
func TestConnectLimit(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	c := client(t, Target{BaseURL: "http://localhost/v1", Socket: socket, Limits: Limits{FirstByte: 50 * time.Millisecond}})
	_, err = c.Ask(t.Context(), hello, Options{}, 0)
	if failed := new(Error); !errors.As(err, &failed) || failed.Code != "timed_out" {
		t.Errorf("got %v, want timed_out", err)
	}
}
