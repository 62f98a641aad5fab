//go:build !linux

package probe

import (
	"context"
	"time"

	"github.com/shirou/gopsutil/v3/process"
)

// processorTime returns the CPU time of a process and its start time since 1970, in seconds. Not tested on
// real machines.
func processorTime(ctx context.Context, pid int) (used, started float64, err error) {
	watched := &process.Process{Pid: int32(pid)}
	times, err := watched.TimesWithContext(ctx)
	if err != nil {
		return 0, 0, err
	}
	created, err := watched.CreateTimeWithContext(ctx)
	if err != nil {
		return 0, 0, err
	}
	return times.User + times.System, float64(created) / 1000, nil
}

// age returns the time since a process started.
func age(started float64) (time.Duration, error) {
	return time.Since(time.UnixMilli(int64(started * 1000))), nil
}
