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

// P4, A8: the ends of runtimes under a memory limit, as the real one ends, and ends with another cause.
func TestMemoryRefused(t *testing.T) {
	const limit = 64 << 20
	for name, c := range map[string]struct {
		code        int
		line        string
		limit, most int64
		want        bool
	}{
		"said by the C++ library":     {-1, "  what():  std::bad_alloc", limit, 0, true},
		"said by the allocator":       {1, "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 1", limit, 0, true},
		"killed by the kernel":        {-1, "the kernel killed the runtime: out of memory within its limit", limit, 0, true},
		"without a word, at limit":    {-1, "", limit, 60 << 20, true},
		"without a word, far from it": {-1, "", limit, 20 << 20, false},
		"no limit":                    {-1, "std::bad_alloc", 0, limit, false},
		"another failure":             {1, "error: failed to load model", limit, 20 << 20, false},
		"an orderly end":              {0, "std::bad_alloc", limit, limit, false},
	} {
		exit := messages.ExitReport{Code: c.code, LastLines: []string{"first line", c.line}}
		if got := memoryRefused(exit, c.limit, c.most); got != c.want {
			t.Errorf("%s: got %t, want %t", name, got, c.want)
		}
	}
}
