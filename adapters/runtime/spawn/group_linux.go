package spawn

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// ownProgram is this program, even if its file was replaced since the start.
func ownProgram() (string, error) { return "/proc/self/exe", nil }

func stageAttributes(g *cgroup) *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if g != nil {
		attributes.UseCgroupFD, attributes.CgroupFD = true, int(g.dir.Fd())
	}
	return attributes
}

// ownNamespaces is what the stage gets where the system lets this user make it: a user namespace, which only root
// can do without, and a network namespace, which has no interface that is up. No user is mapped: the process
// keeps its rights to the user's files, and has no capability once it executes.
var ownNamespaces uintptr = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET

// separate asks for namespaces of the stage's own, and reports whether this system knows such.
func separate(attributes *syscall.SysProcAttr) bool {
	attributes.Cloneflags |= ownNamespaces
	return ownNamespaces != 0
}

// awaitLeader returns when the leader has ended, without reaping it: the number stays ours while the
// rest of the group is killed.
func (g *group) awaitLeader() {
	for unix.Waitid(unix.P_PID, g.leader(), nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}
