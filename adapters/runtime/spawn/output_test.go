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

// R8: what a line may still say, and what not.
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
			t.Errorf("clean(%q) = %q, want %q", line, got, want)
		}
	}
}

// endless is a flood: the same bytes for ever, and how many were taken.
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

// R8, T16: a flood, of empty lines or of one without an end, is read at a rate that costs next to
// nothing, so that the pipe holds its sender up; the end does not wait for it.
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
				// A buffer of them may have been read and not been looked at, and one breath be in advance.
				if most := piecesAtOnce + (seconds+1)*piecesPerSecond + lineBytes; pieces > most || pieces < piecesAtOnce {
					t.Errorf("%d pieces were read in %d s, want at most %d", pieces, seconds, most)
				}
				stop()
				before := time.Now()
				close(o.closed)
				<-drained
				if took := time.Since(before); took != 0 {
					t.Errorf("the end took %v", took)
				}
			})
		})
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(buffer []byte) (int, error) { return f(buffer) }

// R8: what llama-server prints, at its start and then for several requests a second, is never held up.
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
			t.Errorf("it took %v, want %d s", took, seconds)
		}
	})
}

// A9: a panic of the reader, or of the one who is told of the lines, ends neither the daemon nor the
// reading of the pipe.
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
		t.Errorf("heard %v", p)
	}
}

// R8: no line brings a known path or a digest through, however it is dressed.
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
				t.Errorf("clean = %q", clean)
			}
		}
	})
}
