//go:build !linux

package spawn

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/shirou/gopsutil/v3/process"

	"companion/adapters/runtime/identity"
)

// identify reads the start time of a process, in milliseconds since 1970. Untested on real machines.
func identify(pid int) (record, error) {
	p := &process.Process{Pid: int32(pid)}
	started, err := p.CreateTime()
	if err != nil {
		return record{}, fmt.Errorf("reading a process's start time: %w", err)
	}
	return record{PID: pid, StartTime: uint64(started)}, nil
}

// running reports whether the process of the record runs still.
func running(r record) bool {
	now, err := identify(r.PID)
	if err != nil || now.StartTime != r.StartTime {
		return false
	}
	path, err := (&process.Process{Pid: int32(r.PID)}).Exe()
	if err != nil {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	file, err := identity.Of(f)
	return err == nil && file.Device == r.Device && file.Inode == r.Inode
}

// end kills the recorded process and waits until it is gone. There is no notification for another's
// child here.
func end(ctx context.Context, r record) (bool, error) {
	if !running(r) {
		return false, nil
	}
	p, err := os.FindProcess(r.PID)
	if err != nil {
		return false, nil
	}
	defer func() { _ = p.Release() }()
	if err := p.Kill(); err != nil {
		return false, pathless(err)
	}
	for running(r) {
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return true, nil
}
