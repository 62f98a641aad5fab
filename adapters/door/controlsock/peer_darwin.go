package controlsock

import (
	"net"

	"golang.org/x/sys/unix"
)

// peerOf returns the effective user of the other end, by LOCAL_PEERCRED. Untested on real machines.
func peerOf(conn net.Conn) (uint32, error) {
	raw, err := rawConn(conn)
	if err != nil {
		return 0, err
	}
	var cred *unix.Xucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}
