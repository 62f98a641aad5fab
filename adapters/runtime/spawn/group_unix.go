//go:build unix

package spawn

import (
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// group is a running process group. mu orders signals before reaping, so that no signal goes to a reused process id.
type group struct {
	cmd      *exec.Cmd
	runtime  int      // process id of the runtime if it is not the leader, else 0
	lifeline *os.File // closed when the group has ended
	cgroup   *cgroup  // nil if there is none
	// notifications are closed when the group has ended; nil in tests that start no stage.
	notifications *notifications
	mu            sync.Mutex
	reaped        bool
}

// adopt takes the runtime's process id from the stage's report.
func (g *group) adopt(said stageReport) { g.runtime = said.PID }

func (g *group) pid() int {
	if g.runtime != 0 {
		return g.runtime
	}
	return g.leader()
}

func (g *group) leader() int { return g.cmd.Process.Pid }

// signalGroup signals the whole group, unless its leader was reaped and its process id may be reused.
func (g *group) signalGroup(signals ...unix.Signal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.reaped {
		return
	}
	for _, s := range signals {
		_ = unix.Kill(-g.leader(), s)
	}
}

// terminate sends SIGTERM. A stopped process must be continued to receive it.
func (g *group) terminate() { g.signalGroup(unix.SIGTERM, unix.SIGCONT) }

func (g *group) kill() { g.signalGroup(unix.SIGKILL) }

// wait returns when the leader has ended (the kernel wakes it, R9), the rest of its group has been killed and has ended,
// and the leader has been reaped (R6).
func (g *group) wait() ending {
	g.awaitLeader()
	g.mu.Lock()
	_ = unix.Kill(-g.leader(), unix.SIGKILL)
	_ = g.cmd.Wait()
	g.reaped = true
	g.mu.Unlock()
	g.awaitEmpty()
	ended := endingOf(g.cmd)
	ended.outOfMemory = g.cgroup.outOfMemory()
	g.cgroup.end()
	if g.lifeline != nil {
		_ = g.lifeline.Close()
	}
	g.notifications.close()
	return ended
}

// awaitEmpty waits until the killed group has no member; until then its id is not reused. It polls, because the kernel
// notifies only of direct children. The members end within milliseconds.
func (g *group) awaitEmpty() {
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if unix.Kill(-g.leader(), 0) == unix.ESRCH {
			return
		}
	}
}
