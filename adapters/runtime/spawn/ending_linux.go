package spawn

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"companion/adapters/lowlatency"
)

const (
	// watchedThreads is how many threads Ending watches. The last thread to end frees the memory first, so it must not
	// be the only one watched.
	watchedThreads = 4
	// settled is the time in which nearly all threads of an ending process end, after the first one; they take 0.1 ms.
	// A thread that runs meanwhile competes with them for a processor, and when it is preempted by the one that frees
	// the memory, it waits until the next tick of the scheduler (4 ms).
	settled = 60 * time.Microsecond
)

// Ending returns nil as soon as the runtime pid has begun to end. The exit notification of a process comes only after
// its memory is freed, which takes tens of milliseconds for a loaded model. The threads end before that, and the kernel
// reports it (PIDFD_THREAD, Linux 6.9). Call it when the runtime is ready and has its threads. It returns an error when
// ctx ends or the kernel cannot report; then only Started.Exit does. After detecting the end, Ending uses raw system
// calls only: others wake the monitor thread of Go's scheduler, which then competes too. Its descriptors are
// therefore closed when ctx ends.
func Ending(ctx context.Context, pid int) error {
	for {
		if whole, err := awaitEnd(ctx, pid); whole || err != nil {
			return err
		}
	}
}

// awaitEnd returns when a thread of pid has ended, and reports whether the whole process ends.
func awaitEnd(ctx context.Context, pid int) (whole bool, err error) {
	threads, err := watchThreads(pid)
	if err != nil {
		// The threads of a process that ends leave its list before its exit is reported.
		if whole, unread := isEnding(pid); whole && unread == nil {
			return true, nil
		}
		return false, err
	}
	notYet := context.AfterFunc(ctx, threads.close)
	ended, err := threads.await(ctx)
	if err != nil {
		return false, err
	}
	if ended < max(2, len(threads.each)-1) {
		// A thread of a pool may have ended alone. Checking the process can take milliseconds, because the freeing of
		// its memory may fall to the thread that checks.
		if whole, err = isEnding(pid); !whole {
			if notYet() {
				threads.close()
			}
			return false, err
		}
	}
	lowlatency.LowerAutogroup(threads.session)
	return true, nil
}

// threads holds descriptors of some threads, and an epoll instance that reports the end of any of them.
type threads struct {
	each    []int
	any     *os.File // an epoll instance
	session *os.File // their /proc/PID/autogroup, or nil
}

// watchThreads opens some threads of pid, except the first: its end is reported only after all others have ended.
func watchThreads(pid int) (*threads, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, fmt.Errorf("listing the runtime's threads: %w", pathless(err))
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watching the runtime's threads: %w", err)
	}
	// The Go runtime's poller waits for non-blocking descriptors.
	_ = unix.SetNonblock(epoll, true)
	t := &threads{any: os.NewFile(uintptr(epoll), "threads")}
	t.session = lowlatency.OpenAutogroup(pid)
	for _, entry := range entries {
		id, err := strconv.Atoi(entry.Name())
		if err != nil || id == pid || len(t.each) == watchedThreads {
			continue
		}
		fd, err := unix.PidfdOpen(id, unix.O_EXCL)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err == nil {
			t.each = append(t.each, fd)
			err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN})
		}
		if err != nil {
			t.close()
			return nil, fmt.Errorf("watching the runtime's threads: %w", err)
		}
	}
	if len(t.each) == 0 {
		t.close()
		return nil, errors.New("watching the runtime's threads: it has one only")
	}
	return t, nil
}

// await returns how many of the threads have ended, a time of settled after the first one.
func (t *threads) await(ctx context.Context) (ended int, err error) {
	defer context.AfterFunc(ctx, func() { _ = t.any.SetReadDeadline(time.Unix(1, 0)) })()
	raw, err := t.any.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("watching the runtime's threads: %w", err)
	}
	var events [watchedThreads]unix.EpollEvent
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		if ended, failed = poll(fd, events[:]); ended > 0 {
			lowlatency.Sleep(settled)
			ended, failed = poll(fd, events[:])
		}
		return ended > 0 || failed != nil
	})
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if err = errors.Join(err, failed); err != nil {
		return 0, fmt.Errorf("watching the runtime's threads: %w", err)
	}
	return ended, nil
}

// poll is a non-blocking epoll_wait(2).
func poll(epoll uintptr, events []unix.EpollEvent) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, epoll, uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func (t *threads) close() {
	_ = t.any.Close()
	_ = t.session.Close()
	for _, fd := range t.each {
		_ = unix.Close(fd)
	}
}

// IsEnding reports whether the runtime pid, which is not reaped, has begun to end. Any kernel tells.
func IsEnding(pid int) bool {
	ending, err := isEnding(pid)
	return ending && err == nil
}

// isEnding reports whether the whole process ends, and not only one of its threads: it no longer exists, or has a
// pending SIGKILL, which the kernel sends to every thread of an ending process.
func isEnding(pid int) (bool, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return gone(err)
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch name {
		case "State":
			if strings.HasPrefix(value, "Z") || strings.HasPrefix(value, "X") {
				return true, nil
			}
		case "SigPnd", "ShdPnd":
			pending, err := strconv.ParseUint(value, 16, 64)
			if err == nil && pending&(1<<(unix.SIGKILL-1)) != 0 {
				return true, nil
			}
		}
	}
	return exiting(pid)
}

// exiting reads the flags of the first thread, field 9 of /proc/PID/stat: PF_EXITING of the
// kernel's sched.h.
func exiting(pid int) (bool, error) {
	const flags, pfExiting = 9 - 3, 0x4
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return gone(err)
	}
	text := string(stat)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) <= flags {
		return false, errors.New("reading the runtime's state: it has no flags")
	}
	value, err := strconv.ParseUint(fields[flags], 10, 64)
	if err != nil {
		return false, fmt.Errorf("reading the runtime's state: %w", err)
	}
	return value&pfExiting != 0, nil
}

// gone distinguishes a process that no longer exists from one whose state cannot be read.
func gone(err error) (bool, error) {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return true, nil
	}
	return false, fmt.Errorf("reading the runtime's state: %w", pathless(err))
}
