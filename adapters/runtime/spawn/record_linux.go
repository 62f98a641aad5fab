package spawn

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// identify reads boot and start time of a process: field 22 of /proc/PID/stat, in clock ticks since the boot
// (proc_pid_stat(5)).
func identify(pid int) (record, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return record{}, fmt.Errorf("reading a process's start time: %w", err)
	}
	// The second field is a name in parentheses, which may contain any character.
	text := string(stat)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const startTime = 22 - 3
	if len(fields) <= startTime {
		return record{}, errors.New("reading a process's start time: fields are missing")
	}
	started, err := strconv.ParseUint(fields[startTime], 10, 64)
	if err != nil {
		return record{}, fmt.Errorf("reading a process's start time: %w", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return record{}, fmt.Errorf("reading the boot's identity: %w", err)
	}
	return record{PID: pid, Boot: strings.TrimSpace(string(boot)), StartTime: started}, nil
}

// endSession kills the processes that the recorded one has left in its session: those with its program and a later start
// time. The kernel reuses the session id for no other session while one of them lives.
func endSession(r record) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if session, err := unix.Getsid(pid); err != nil || session != r.PID {
			continue
		}
		pidfd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		if now, err := identify(pid); err == nil && now.Boot == r.Boot && now.StartTime >= r.StartTime && runs(pid, r) {
			_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		}
		_ = unix.Close(pidfd)
	}
}

// running reports whether the recorded process still runs.
func running(r record) bool {
	now, err := identify(r.PID)
	if err != nil || now.Boot != r.Boot || now.StartTime != r.StartTime {
		return false
	}
	return runs(r.PID, r)
}

// runs reports whether the process runs the recorded program.
func runs(pid int, r record) bool {
	info, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && uint64(stat.Dev) == r.Device && stat.Ino == r.Inode
}

// end kills the recorded process, its group and the processes it left in its session, and waits until it has ended. It
// opens the pidfd before it compares the identity, so that both refer to the same process.
func end(ctx context.Context, r record) (bool, error) {
	defer endSession(r)
	pidfd, err := unix.PidfdOpen(r.PID, 0)
	if err != nil {
		return false, nil
	}
	defer func() { _ = unix.Close(pidfd) }()
	if !running(r) {
		return false, nil
	}
	if groupID, err := unix.Getpgid(r.PID); err == nil && groupID == r.PID {
		_ = unix.Kill(-r.PID, unix.SIGKILL)
	}
	if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return false, err
	}
	// The pidfd becomes readable when the process has ended. Each poll is short, so that ctx is checked in between.
	for deadline := time.Now().Add(killPatience); ; {
		if time.Now().After(deadline) {
			return false, ErrUnended
		}
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(50*time.Millisecond/time.Millisecond))
		if ready == 1 {
			return true, nil
		}
		if err != nil && err != unix.EINTR {
			return false, err
		}
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
	}
}
