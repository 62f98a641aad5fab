package probe

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// R16: the threads are the physical cores of the allowed processors.
func TestPhysicalCores(t *testing.T) {
	dir := t.TempDir()
	for cpu, siblings := range []string{"0,4", "1,5", "2,6", "3,7", "0,4", "1,5", "2,6", "3,7"} {
		place := filepath.Join(dir, "cpu"+strconv.Itoa(cpu), "topology")
		if err := os.MkdirAll(place, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(place, "thread_siblings_list"), []byte(siblings+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		dir     string
		allowed []int
		want    int
	}{
		"all":                     {dir, []int{0, 1, 2, 3, 4, 5, 6, 7}, 4},
		"two threads of one core": {dir, []int{1, 5}, 1},
		"two cores":               {dir, []int{1, 2}, 2},
		"no topology":             {t.TempDir(), []int{0, 1, 70}, 3},
	} {
		var allowed unix.CPUSet
		for _, cpu := range tt.allowed {
			allowed.Set(cpu)
		}
		if got := physical(tt.dir, &allowed); got != tt.want {
			t.Errorf("%s: got %d, want %d", name, got, tt.want)
		}
	}
}

// R16: a quota bounds the threads, of whatever group above the process.
func TestQuota(t *testing.T) {
	root := t.TempDir()
	group := filepath.Join(root, "user.slice", "app")
	if err := os.MkdirAll(group, 0o700); err != nil {
		t.Fatal(err)
	}
	mounts := "30 23 0:26 / " + root + " rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
	write := func(dir, text string) {
		if err := os.WriteFile(filepath.Join(dir, "cpu.max"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(what string, want float64) {
		t.Helper()
		if got := quota(mounts, "0::/user.slice/app\n"); got != want {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	expect("no files", 0)
	write(group, "max 100000\n")
	expect("max", 0)
	write(filepath.Dir(group), "300000 100000\n")
	expect("of the group above", 3)
	write(group, "150000 100000\n")
	expect("the smaller one", 1.5)
	write(group, "nonsense")
	expect("unreadable", 3)
	if got := quota("", "0::/x"); got != 0 {
		t.Errorf("no cgroup v2: got %v, want 0", got)
	}
	for _, tt := range []struct {
		physical int
		quota    float64
		want     int
	}{{4, 0, 4}, {4, 1.5, 1}, {4, 0.5, 1}, {2, 8, 2}, {0, 0, 1}} {
		if got := cores(tt.physical, tt.quota); got != tt.want {
			t.Errorf("cores(%d, %v): got %d, want %d", tt.physical, tt.quota, got, tt.want)
		}
	}
}

// R16: on this machine, the process may use at least one core, and no more than are allowed.
func TestCoresHere(t *testing.T) {
	var one unix.CPUSet
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		t.Fatal(err)
	}
	if got := Cores(); got < 1 || got > allowed.Count() {
		t.Errorf("got %d, want 1 to %d", got, allowed.Count())
	}
	own, _ := os.ReadFile("/proc/self/cgroup")
	if strings.Contains(string(own), "0::") && physical("/sys/devices/system/cpu", &one) != 0 {
		t.Error("no processor allowed: got a core")
	}
}
