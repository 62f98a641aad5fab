package probe

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var processFile = regexp.MustCompile(`"/proc/(\d+)(/[^"]*)?"|"/proc/?"`)

// P1, T9: under strace, the probe opens files of the observed process only and lists no processes.
func TestOpensNoOtherProcess(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("got no strace, want it installed")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	trace := filepath.Join(t.TempDir(), "trace")
	watched := strconv.Itoa(os.Getpid())
	cmd := exec.Command(strace, "-f", "-e", "trace=file,getdents64", "-s", "256", "-o", trace, self)
	cmd.Env = append(os.Environ(), observeEnv+"="+watched)
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	data, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	var own int
	for line := range strings.Lines(string(data)) {
		found := processFile.FindStringSubmatch(line)
		switch {
		case found == nil:
		case found[1] == watched:
			own++
		case found[1] == "" && !strings.Contains(line, "getdents") && !strings.Contains(line, "O_DIRECTORY"):
			// Checking whether /proc is mounted reads nothing about a process.
		default:
			t.Errorf("got an opened file of another process, want none: %s", line)
		}
	}
	if own == 0 {
		t.Error("got no file of the observed process in the trace, want some")
	}
}
