//go:build unix

package spawn

import (
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// group is a running process group. mu guards signals against reaping, so that no signal goes to a
// number that was given back.
type group struct {
	cmd      *exec.Cmd
	runtime  int      // process id of the runtime where it is not the leader, else 0
	lifeline *os.File // closed when all is over
	cgroup   *cgroup  // nil where there is none
	// notifications are closed when all is over; nil in tests that start no stage.
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

// signalGroup signals the whole group, unless its leader was reaped: its number may be another's.
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

// terminate asks politely. A stopped process must be continued to hear it.
func (g *group) terminate() { g.signalGroup(unix.SIGTERM, unix.SIGCONT) }

func (g *group) kill() { g.signalGroup(unix.SIGKILL) }

// wait returns when the leader has ended (the kernel wakes it, R9), the rest of its group is killed
// and gone, and the leader is reaped (R6).
func (g *group) wait() ending {
	g.awaitLeader()
	g.mu.Lock()
	_ = unix.Kill(-g.leader(), unix.SIGKILL)
	_ = g.cmd.Wait()
	g.reaped = true
	g.mu.Unlock()
	g.awaitEmpty()
	g.cgroup.end()
	if g.lifeline != nil {
		_ = g.lifeline.Close()
	}
	g.notifications.close()
	return endingOf(g.cmd)
}

// awaitEmpty waits until no member of the killed group is left; as long as one is, the number is not
// reused. The kernel notifies of own children only, so it polls: what is left ends within milliseconds.
func (g *group) awaitEmpty() {
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if unix.Kill(-g.leader(), 0) == unix.ESRCH {
			return
		}
	}
}
