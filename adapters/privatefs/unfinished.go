package privatefs

import (
	"os"
	"path/filepath"
	"strings"
)

// RemoveUnfinished removes what calls of WriteFile for these files of dir left when the process was killed. No other call for one of
// them may run.
func RemoveUnfinished(dir string, files ...string) {
	entries, _ := os.ReadDir(dir) // the next call tries again
	for _, e := range entries {
		for _, file := range files {
			random, ok := strings.CutPrefix(e.Name(), "."+file)
			random = strings.TrimPrefix(random, "-") // on Windows
			if ok && random != "" && strings.Trim(random, "0123456789") == "" {
				_ = os.Remove(filepath.Join(dir, e.Name()))
			}
		}
	}
}
