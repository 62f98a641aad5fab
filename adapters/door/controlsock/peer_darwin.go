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

// peerPID returns the process at the other end, by LOCAL_PEERPID. Untested on real machines.
func peerPID(conn net.Conn) (int, error) {
	raw, err := rawConn(conn)
	if err != nil {
		return 0, err
	}
	var pid int
	var pidErr error
	if err := raw.Control(func(fd uintptr) {
		pid, pidErr = unix.GetsockoptInt(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERPID)
	}); err != nil {
		return 0, err
	}
	return pid, pidErr
}
