package spawn

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func ownProgram() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding our own program: %w", pathless(err))
	}
	return self, nil
}

// cgroup exists only on Linux.
type cgroup struct{}

func newCgroup(int64) *cgroup     { return nil }
func (*cgroup) end()              {}
func (*cgroup) outOfMemory() bool { return false }

// separate returns false: macOS has no namespaces.
func separate(*syscall.SysProcAttr) bool { return false }

func stageAttributes(*cgroup) *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// awaitLeader waits for the leader's end through kqueue, without reaping it.
func (g *group) awaitLeader() {
	queue, err := unix.Kqueue()
	if err != nil {
		return // cmd.Wait waits then
	}
	defer func() { _ = unix.Close(queue) }()
	change := unix.Kevent_t{Filter: unix.EVFILT_PROC, Flags: unix.EV_ADD | unix.EV_ONESHOT, Fflags: unix.NOTE_EXIT}
	unix.SetKevent(&change, g.leader(), unix.EVFILT_PROC, unix.EV_ADD|unix.EV_ONESHOT)
	events := make([]unix.Kevent_t, 1)
	for {
		if _, err := unix.Kevent(queue, []unix.Kevent_t{change}, events, nil); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// plan has no sandbox: macOS offers none to programs of this kind, and the status says so.
func (p *preparation) plan() (plan, error) {
	return plan{
		Parent: os.Getpid(), Args: p.arguments(p.places()), Env: p.environment(),
		MemoryLimit: p.spec.MemoryLimit, Mode: p.spec.Sandbox, Executable: p.executable.Name(), Further: len(p.further),
	}, nil
}

// HasGPU reports true: every Mac that runs a model has one.
func HasGPU() bool { return true }
