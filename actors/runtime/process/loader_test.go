package process

import (
	"testing"

	"companion/messages"
)

// A8: the messages of each dynamic loader, and exits with another cause.
func TestLibraryMissing(t *testing.T) {
	for _, c := range []struct {
		code int
		line string
		want bool
	}{
		{127, "llama-server: error while loading shared libraries: libgomp.so.1: cannot open shared object file: No such file or directory", true},
		{127, "Error loading shared library libgomp.so.1: No such file or directory (needed by llama-server)", true},
		{1, "llama-server: /lib/libc.so.6: version `GLIBC_2.38' not found (required by llama-server)", true},
		{127, "Error relocating llama-server: __res_init: symbol not found", true},
		{1, "error: failed to load model", false},
		{0, "error while loading shared libraries: x", false},
		{-1, "error while loading shared libraries: x", false},
		{127, "", false},
	} {
		exit := messages.ExitReport{Code: c.code, LastLines: []string{"first line", c.line}}
		if got := libraryMissing(exit); got != c.want {
			t.Errorf("exit status %d, %q: got %t, want %t", c.code, c.line, got, c.want)
		}
	}
}
