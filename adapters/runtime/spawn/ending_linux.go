package spawn

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// watchedThreads is how many threads Ending watches: the last to leave frees the memory first, so
// it must not be the only one.
const watchedThreads = 4

// Ending returns nil as soon as the runtime pid has begun to end. The notification of its exit
// comes only after its memory is freed, which for a loaded model takes tens of milliseconds; its
// threads end before that, and the kernel tells so (PIDFD_THREAD, Linux 6.9). Call it when the
// runtime is ready and has its threads. It returns an error when ctx ends or the kernel cannot tell;
// Started.Exit tells then.
func Ending(ctx context.Context, pid int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		threads, err := openThreads(pid)
		if err != nil {
			return err
		}
		if err := anyEnded(ctx, threads); err != nil || isEnding(pid) {
			return err
		}
	}
}

// openThreads returns descriptors of some threads of pid, without the first one: that one is told
// only when all have ended.
func openThreads(pid int) ([]*os.File, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, fmt.Errorf("listing the runtime's threads: %w", pathless(err))
	}
	var threads []*os.File
	for _, entry := range entries {
		id, err := strconv.Atoi(entry.Name())
		if err != nil || id == pid {
			continue
		}
		fd, err := unix.PidfdOpen(id, unix.O_EXCL|unix.PIDFD_NONBLOCK)
		if err == unix.ESRCH {
			continue
		} else if err != nil {
			closeAll(threads)
			return nil, fmt.Errorf("watching the runtime's threads: %w", err)
		}
		if threads = append(threads, os.NewFile(uintptr(fd), "thread")); len(threads) == watchedThreads {
			break
		}
	}
	if len(threads) == 0 {
		return nil, fmt.Errorf("watching the runtime's threads: it has one only")
	}
	return threads, nil
}

// anyEnded returns when one of the threads has ended, and closes them all.
func anyEnded(ctx context.Context, threads []*os.File) error {
	ended := make(chan struct{}, len(threads))
	for _, thread := range threads {
		go func() {
			awaitThread(thread)
			ended <- struct{}{}
		}()
	}
	var err error
	left := len(threads)
	select {
	case <-ended:
		left--
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	closeAll(threads) // wakes the others
	for range left {
		<-ended
	}
	return err
}

func awaitThread(thread *os.File) {
	raw, err := thread.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err != nil || ready == 1
	})
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// isEnding reports whether the whole process ends, and not one of its threads alone: it is gone, or
// told to be by a pending SIGKILL, which the kernel gives every thread of a process that ends.
func isEnding(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch name {
		case "State":
			if strings.HasPrefix(value, "Z") || strings.HasPrefix(value, "X") {
				return true
			}
		case "SigPnd", "ShdPnd":
			pending, err := strconv.ParseUint(value, 16, 64)
			if err == nil && pending&(1<<(unix.SIGKILL-1)) != 0 {
				return true
			}
		}
	}
	return exiting(pid)
}

// exiting reads the flags of the first thread, field 9 of /proc/PID/stat: PF_EXITING of the
// kernel's sched.h.
func exiting(pid int) bool {
	const flags, pfExiting = 9 - 3, 0x4
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	text := string(stat)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) <= flags {
		return true
	}
	value, err := strconv.ParseUint(fields[flags], 10, 64)
	return err != nil || value&pfExiting != 0
}
