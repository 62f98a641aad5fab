//go:build !linux

package probe

import (
	"context"
	"time"

	"github.com/shirou/gopsutil/v3/process"
)

// processorTime returns the seconds of processor time that a process has used, and its age.
// Untested on real machines.
func processorTime(ctx context.Context, pid int) (used float64, age time.Duration, err error) {
	watched := &process.Process{Pid: int32(pid)}
	times, err := watched.TimesWithContext(ctx)
	if err != nil {
		return 0, 0, err
	}
	created, err := watched.CreateTimeWithContext(ctx)
	if err != nil {
		return 0, 0, err
	}
	return times.User + times.System, time.Since(time.UnixMilli(created)), nil
}
