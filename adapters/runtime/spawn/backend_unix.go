//go:build unix

package spawn

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"companion/messages"
)

// checkAddress refuses a socket that others could reach or that is not ours.
func checkAddress(b messages.BackEnd) error {
	info, err := os.Lstat(b.Address)
	if err != nil {
		return pathless(err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || int(stat.Uid) != os.Geteuid():
		return fmt.Errorf("%w: its socket has another owner", ErrNotOurChild)
	case info.Mode().Type() != fs.ModeSocket || info.Mode().Perm() != 0o600:
		return fmt.Errorf("%w: its socket has type and mode %s", ErrNotOurChild, info.Mode())
	}
	return nil
}

// checkPeer refuses a connection whose other end did not listen as the process pid.
func checkPeer(conn net.Conn, pid int) error {
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return errors.New("not a Unix socket")
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return fmt.Errorf("asking who answers: %w", err)
	}
	var peer int
	var asked error
	if err := raw.Control(func(fd uintptr) { peer, asked = peerPID(int(fd)) }); err != nil {
		return fmt.Errorf("asking who answers: %w", err)
	}
	if asked != nil {
		return fmt.Errorf("asking who answers: %w", asked)
	}
	if peer != pid {
		return fmt.Errorf("%w: process %d answers instead of %d", ErrNotOurChild, peer, pid)
	}
	return nil
}
