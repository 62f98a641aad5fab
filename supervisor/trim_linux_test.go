package supervisor

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// The pages that the start touched no longer count, and the program runs on: BenchmarkIdle in e2e
// prints what that is worth to the daemon.
func TestDropProgramPages(t *testing.T) {
	before := residentFileKiB(t)
	if err := dropProgramPages(); err != nil {
		t.Fatal(err)
	}
	if after := residentFileKiB(t); after >= before {
		t.Errorf("%d KiB of files are resident, %d before", after, before)
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
		t.Fatalf("reading RssFile: %v", err)
	}
	return kib
}
