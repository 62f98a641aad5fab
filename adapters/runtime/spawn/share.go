package spawn

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"

	"companion/messages"
)

// shareOption makes all slots share the memory of one context.
const shareOption = "--kv-unified"

// CanShareContext reports whether a runtime has the option. A runtime without it would refuse to start. The answer comes
// from the files of the runtime, of which Spawn checks the digests before it executes any: the names of the options are
// texts in the program or in its libraries.
func CanShareContext(r messages.VerifiedRuntime) bool {
	dir := filepath.Dir(filepath.Join(r.Dir, filepath.FromSlash(r.Executable)))
	files, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, file := range files {
		if strings.Contains(file.Name(), "llama") && contains(filepath.Join(dir, file.Name()), shareOption) {
			return true
		}
	}
	return false
}

// contains reports whether a file has text in it.
func contains(file, text string) bool {
	f, err := openRegular(file)
	if err != nil {
		return false // not a regular file, or one that cannot be read
	}
	defer f.Close()
	buffer := make([]byte, 1<<20)
	kept := 0
	for {
		n, err := f.Read(buffer[kept:])
		if bytes.Contains(buffer[:kept+n], []byte(text)) {
			return true
		}
		if err == io.EOF || n == 0 {
			return false
		}
		kept = copy(buffer, buffer[max(0, kept+n-len(text)):kept+n])
	}
}
