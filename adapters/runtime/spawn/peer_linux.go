package spawn

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// peerPID returns the process that called listen on the other end, which must be of our user.
func peerPID(fd int) (int, error) {
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	if int(peer.Uid) != os.Geteuid() {
		return 0, errors.New("another user answers")
	}
	return int(peer.Pid), nil
}
