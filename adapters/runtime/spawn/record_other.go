//go:build !linux

package spawn

import (
	"fmt"
	"os"

	"github.com/shirou/gopsutil/v3/process"

	"companion/adapters/runtime/fileid"
)

// endAbandonedGroups does nothing: only Linux has control groups.
func endAbandonedGroups() {}

// identify reads the start time of a process, in milliseconds since 1970. Tested under Wine; untested
// on real machines.
func identify(pid int) (record, error) {
	p := &process.Process{Pid: int32(pid)}
	started, err := p.CreateTime()
	if err != nil {
		return record{}, fmt.Errorf("reading a process's start time: %w", err)
	}
	return record{PID: pid, StartTime: uint64(started)}, nil
}

// running reports whether the recorded process still runs.
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
	file, err := fileid.Of(f)
	return err == nil && file.Device == r.Device && file.Inode == r.Inode
}
