package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is USER_HZ, which is 100 wherever Go runs on Linux.
const ticksPerSecond = 100

// processorTime returns the CPU time of a process and its start time since boot, in seconds: fields 14, 15
// and 22 of /proc/PID/stat. gopsutil's Times is not used, because it also determines the boot time, for which
// it reads the environment of process 1 (P1).
func processorTime(_ context.Context, pid int) (used, started float64, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The second field is a name in parentheses that may contain any character.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	const user, system, start = 14 - 3, 15 - 3, 22 - 3
	if len(fields) <= start {
		return 0, 0, errors.New("fields of the process's state are missing")
	}
	var numbers [3]float64
	for i, field := range []int{user, system, start} {
		ticks, bad := strconv.ParseUint(fields[field], 10, 64)
		err = errors.Join(err, bad)
		numbers[i] = float64(ticks) / ticksPerSecond
	}
	return numbers[0] + numbers[1], numbers[2], err
}

// age returns the time since a process started, given its start time since boot.
func age(started float64) (time.Duration, error) {
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0, err
	}
	up, _, _ := strings.Cut(string(uptime), " ")
	now, err := strconv.ParseFloat(up, 64)
	return time.Duration((now - started) * float64(time.Second)), err
}
