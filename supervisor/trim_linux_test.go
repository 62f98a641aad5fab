package supervisor

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// dropProgramPages reduces the resident file pages, and the program continues to run. BenchmarkIdle in e2e measures the effect
// on the daemon.
func TestDropProgramPages(t *testing.T) {
	before := residentFileKiB(t)
	if err := dropProgramPages(); err != nil {
		t.Fatal(err)
	}
	if after := residentFileKiB(t); after >= before {
		t.Errorf("resident file pages: got %d KiB, want less than %d KiB", after, before)
	}
}

func residentFileKiB(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(status), "RssFile:")
	kib, err := strconv.Atoi(strings.Fields(rest + " -")[0])
	if !found || err != nil {
		t.Fatalf("reading RssFile: got %v, want its line", err)
	}
	return kib
}
