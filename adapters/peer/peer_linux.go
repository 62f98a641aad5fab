package peer

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// processAt returns the process that called listen on the other end, which must be of this user.
func processAt(fd int) (int, error) {
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	if int(peer.Uid) != os.Geteuid() {
		return 0, fmt.Errorf("%w: it belongs to another user", ErrOtherProcess)
	}
	return int(peer.Pid), nil
}
