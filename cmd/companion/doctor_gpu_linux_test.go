package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// X9: a GPU that is not there, not open to the user, not used and used.
func TestCheckGPU(t *testing.T) {
	before := gpuDevices
	t.Cleanup(func() { gpuDevices = before })
	folder := t.TempDir()
	gpuDevices = []string{filepath.Join(folder, "nvidia[0-9]*"), filepath.Join(folder, "renderD*")}
	x := examined(t)
	x.status.Runtime.PID = 1
	try := func(state, says string) {
		t.Helper()
		if found := checkGPU(t.Context(), x); states(found) != state || !strings.Contains(found[0].Text, says) {
			t.Errorf("got %+v, want %s that says %q", found, state, says)
		}
	}
	try(checkOK, "no GPU device")
	device := filepath.Join(folder, "renderD128")
	if err := os.WriteFile(device, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	try(checkOK, "built for it")
	x.status.Runtime.GPUBytes = 1 << 30
	try(checkOK, "1.0 GiB in use")
	x.status.Runtime.GPUBytes = 0
	if err := os.WriteFile(filepath.Join(folder, "nvidia0"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	try(checkWarning, "does not use it")
	if err := os.Symlink("/proc/self/nothing", filepath.Join(folder, "nvidia1")); err != nil { // of root's, too
		t.Fatal(err)
	}
	try(checkWarning, "you may not use")
}
