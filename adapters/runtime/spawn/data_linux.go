package spawn

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// DataBytes returns how much memory a process has that RLIMIT_DATA counts, or 0 if that cannot be read.
func DataBytes(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if size, ok := strings.CutPrefix(line, "VmData:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(size), "kB")), 10, 64)
			return kib << 10
		}
	}
	return 0
}
