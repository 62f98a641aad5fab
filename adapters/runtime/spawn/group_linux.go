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
// only root does not need, a network namespace, which has no interface that is up, and a mount namespace. No user is
// mapped: the process keeps its access to the user's files. The stage has the capability to mount in it, which it loses
// when it executes the runtime.
var ownNamespaces uintptr = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS

// separate requests the stage's own namespaces, and reports whether the system may have them.
func separate(attributes *syscall.SysProcAttr) bool {
	if ownNamespaces == 0 {
		return false
	}
	attributes.Cloneflags |= ownNamespaces
	attributes.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN}
	return true
}

// awaitLeader returns when the leader has ended, without reaping it, so that its process id is not reused while the
// rest of the group is killed.
func (g *group) awaitLeader() {
	for unix.Waitid(unix.P_PID, g.leader(), nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}
