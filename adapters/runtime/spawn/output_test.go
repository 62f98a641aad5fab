//go:build linux

package spawn

import (
	"context"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

// R8: the text that stays in a line, and the text that is removed.
func TestScrub(t *testing.T) {
	s := newScrubber("/data/companion/models/m.gguf", "/run/user/1000/companion", "")
	digest := strings.Repeat("0a1B", 16)
	tests := map[string]string{
		"loading model '/data/companion/models/m.gguf'":  "loading model '[path]'",
		"listening on unix:///run/user/1000/companion/s": "listening on unix://[path]/s",
		"open /home/ada/x.gguf: no such file":            "open [path]: no such file",
		`open C:\Users\ada\x.gguf`:                       "open [path]",
		"sha256:" + digest + " ok":                       "sha256:[digest] ok",
		"50.2 tokens/s, 3/4 done, and/or":                "50.2 tokens/s, 3/4 done, and/or",
		"id deadbeef":                                    "id deadbeef",
		"\x1b[31mred\x1b[0m and \x07bell":                "red and bell",
		"/data/comp\x1b[0manion/models/m.gguf":           "[path]",
		"bad \xff\xfe bytes":                             "bad \uFFFD bytes",
		"":                                               "",
	}
	for line, want := range tests {
		if got := s.clean(line); got != want {
			t.Errorf("clean(%q): got %q, want %q", line, got, want)
		}
	}
}

// endless is an endless flood of the same bytes, and the number of bytes read from it.
type endless struct {
	bytes string
	taken int
}

func (e *endless) Read(buffer []byte) (int, error) {
	n := 0
	for n+len(e.bytes) <= len(buffer) {
		n += copy(buffer[n:], e.bytes)
	}
	e.taken += n
	return n, nil
}

// R8, T16: a flood of empty lines, or of one endless line, is read at a rate that costs almost nothing, so that its
// writer blocks on the pipe. The end of the output does not wait for it.
func TestFloodIsPaced(t *testing.T) {
	const seconds = 5
	for name, bytes := range map[string]string{"empty lines": "\n", "no end of a line": "x"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOutput(nil)
				flood := &endless{bytes: bytes}
				source, stop := context.WithCancel(t.Context())
				drained := make(chan struct{})
				go func() {
					defer close(drained)
					o.drain(readerFunc(func(buffer []byte) (int, error) {
						if source.Err() != nil {
							return 0, io.EOF
						}
						return flood.Read(buffer)
					}))
				}()
				time.Sleep(seconds * time.Second)
				synctest.Wait()
				pieces := flood.taken
				if bytes == "x" {
					pieces /= lineBytes
				}
				// One buffer may have been read but not processed, and reading may be one breath ahead.
				if most := piecesAtOnce + (seconds+1)*piecesPerSecond + lineBytes; pieces > most || pieces < piecesAtOnce {
					t.Errorf("got %d pieces in %d s, want %d to %d", pieces, seconds, piecesAtOnce, most)
				}
				stop()
				before := time.Now()
				close(o.closed)
				<-drained
				if took := time.Since(before); took != 0 {
					t.Errorf("got an end after %v, want none", took)
				}
			})
		})
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(buffer []byte) (int, error) { return f(buffer) }

// R8: the output of llama-server, at its start and for several requests per second, is never delayed.
func TestOrdinaryOutputIsNotPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		o := newOutput(nil)
		o.drain(strings.NewReader(strings.Repeat("llama_model_loader: - kv\n", piecesAtOnce)))
		const seconds = 5
		for range seconds {
			time.Sleep(time.Second)
			o.drain(strings.NewReader(strings.Repeat("slot launch_slot_: id 0\n", piecesPerSecond)))
		}
		if took := time.Since(began); took != seconds*time.Second {
			t.Errorf("got %v, want %d s", took, seconds)
		}
	})
}

// A9: a panic in the reader, or in the receiver of the lines, ends neither the daemon nor the reading of the pipe.
func TestOutputPanic(t *testing.T) {
	o := newOutput(func(string) { panic("planted") })
	write, err := o.open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := write.WriteString(strings.Repeat("x\n", 1<<17)); err != nil {
		t.Error(err)
	}
	o.close()
	if p := <-o.panics; p != "planted" {
		t.Errorf("got the panic %v, want planted", p)
	}
}

// R8: no line contains a known path or a digest, in any spelling.
func FuzzScrub(f *testing.F) {
	const path = "/data/companion/models/m.gguf"
	digest := strings.Repeat("0123456789abcdef", 4)
	f.Add("before ", " after")
	f.Add("\x1b[", "m")
	f.Add("/", "/")
	f.Add("\xff", "\x00")
	s := newScrubber(path)
	f.Fuzz(func(t *testing.T, before, after string) {
		for _, secret := range []string{path, digest} {
			clean := s.clean(before + " " + secret + " " + after)
			if strings.Contains(clean, secret) || !utf8.ValidString(clean) {
				t.Errorf("got %q, want valid UTF-8 without the secret", clean)
			}
		}
	})
}
