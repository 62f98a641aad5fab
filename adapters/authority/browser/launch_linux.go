package browser

import (
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// launch starts cmd with the kernel's own time slices. The daemon asks for the shortest, and a child
// has those of the thread that starts it: the user's browser, and all that it starts, would keep them. Where
// they cannot be changed the daemon has none of its own either.
func launch(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if own, err := unix.SchedGetAttr(0, 0); err == nil {
		usual := *own
		usual.Runtime = 0
		_ = unix.SchedSetAttr(0, &usual, 0)
		defer func() { _ = unix.SchedSetAttr(0, own, 0) }()
	}
	return cmd.Start()
}
