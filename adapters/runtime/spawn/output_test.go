//go:build linux

package spawn

import (
	"strings"
	"testing"
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
