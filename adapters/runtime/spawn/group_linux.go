package spawn

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// ownProgram returns the path of this program, which is valid even if its file was replaced since the start.
func ownProgram() (string, error) { return "/proc/self/exe", nil }

func stageAttributes(g *cgroup) *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if g != nil {
		attributes.UseCgroupFD, attributes.CgroupFD = true, int(g.dir.Fd())
	}
	return attributes
}

// ownNamespaces are the namespaces of the stage, where the system lets this user make them: a user namespace, which
// only root does not need, and a network namespace, which has no interface that is up. No user is mapped: the process
// keeps its access to the user's files, and has no capability after it executes.
var ownNamespaces uintptr = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET

// separate requests the stage's own namespaces, and reports whether the system may have them.
func separate(attributes *syscall.SysProcAttr) bool {
	attributes.Cloneflags |= ownNamespaces
	return ownNamespaces != 0
}

// awaitLeader returns when the leader has ended, without reaping it, so that its process id is not reused while the
// rest of the group is killed.
func (g *group) awaitLeader() {
	for unix.Waitid(unix.P_PID, g.leader(), nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}
