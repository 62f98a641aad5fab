package probe

import (
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Cores returns how many threads a model should compute with: the physical cores of the processors that this process
// may use, and no more than its control groups let it use in full. Two threads of one core share its arithmetic units,
// and threads that wait for each other must not be stopped in turn by a quota.
func Cores() int {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return runtime.NumCPU()
	}
	own, _ := os.ReadFile("/proc/self/cgroup")
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	return cores(physical("/sys/devices/system/cpu", &allowed), quota(string(mounts), string(own)))
}

// cores combines the number of physical cores and a quota in processors, where 0 is none.
func cores(physical int, quota float64) int {
	if quota > 0 {
		physical = min(physical, int(quota))
	}
	return max(physical, 1)
}

// physical counts the cores of the allowed processors. Processors whose topology cannot be read count each.
func physical(dir string, allowed *unix.CPUSet) int {
	seen := map[string]bool{}
	for cpu := range 64 * len(allowed) {
		if !allowed.IsSet(cpu) {
			continue
		}
		name := "cpu" + strconv.Itoa(cpu)
		siblings, err := os.ReadFile(filepath.Join(dir, name, "topology/thread_siblings_list"))
		if err != nil {
			siblings = []byte(name)
		}
		seen[strings.TrimSpace(string(siblings))] = true
	}
	return len(seen)
}

// quota returns the smallest quota of the process's control group (v2) and those above it, in processors; 0 is none.
func quota(mountinfo, own string) float64 {
	root := ""
	for line := range strings.Lines(mountinfo) {
		before, after, _ := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if kind := strings.Fields(after); len(kind) > 0 && kind[0] == "cgroup2" && len(fields) > 4 {
			root = fields[4]
			break
		}
	}
	group := ""
	for line := range strings.Lines(own) {
		if name, found := strings.CutPrefix(strings.TrimSpace(line), "0::"); found {
			group = name
		}
	}
	if root == "" || group == "" {
		return 0
	}
	least := 0.0
	for at := path.Clean("/" + group); ; at = path.Dir(at) {
		text, err := os.ReadFile(filepath.Join(root, at, "cpu.max"))
		if processors := cpuMax(string(text)); err == nil && processors > 0 && (least == 0 || processors < least) {
			least = processors
		}
		if at == "/" {
			return least
		}
	}
}

// cpuMax reads cpu.max: a time and the period in which it may be used, both in microseconds, or "max" for no quota.
func cpuMax(text string) float64 {
	fields := strings.Fields(text)
	if len(fields) != 2 {
		return 0
	}
	used, err := strconv.ParseFloat(fields[0], 64)
	period, err2 := strconv.ParseFloat(fields[1], 64)
	if err != nil || err2 != nil || used <= 0 || period <= 0 {
		return 0
	}
	return used / period
}
