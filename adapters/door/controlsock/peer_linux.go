package controlsock

import (
	"net"

	"golang.org/x/sys/unix"
)

// peerOf returns the user of the process at the other end, by SO_PEERCRED.
func peerOf(conn net.Conn) (uint32, error) {
	cred, err := credentials(conn)
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// peerPID returns the process id of the other end: the connecting process or, for a client, the listening one.
func peerPID(conn net.Conn) (int, error) {
	cred, err := credentials(conn)
	if err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

func credentials(conn net.Conn) (*unix.Ucred, error) {
	raw, err := rawConn(conn)
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return cred, credErr
}
