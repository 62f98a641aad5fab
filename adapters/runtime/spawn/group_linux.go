package spawn

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// ownProgram is this program, even if its file was replaced meanwhile.
func ownProgram() (string, error) { return "/proc/self/exe", nil }

func stageAttributes(g *cgroup) *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if g != nil {
		attributes.UseCgroupFD, attributes.CgroupFD = true, int(g.dir.Fd())
	}
	return attributes
}

// awaitLeader returns when the leader has ended, without reaping it: the number stays ours while the
// rest of the group is killed.
func (g *group) awaitLeader() {
	for unix.Waitid(unix.P_PID, g.leader(), nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}
