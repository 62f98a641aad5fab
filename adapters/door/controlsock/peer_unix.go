//go:build unix

package controlsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"companion/adapters/privatefs"
)

func ownUID() uint32 { return uint32(os.Geteuid()) }

// checkPeer refuses a connection whose other end is not a process of uid, according to the kernel.
func checkPeer(conn net.Conn, uid uint32) error {
	peer, err := peerOf(conn)
	if err != nil {
		return fmt.Errorf("asking the kernel for the other end's user: %w", err)
	}
	if peer != uid {
		return fmt.Errorf("the other end belongs to user %d, not to user %d", peer, uid)
	}
	return nil
}

// rawConn gives access to the descriptor under conn.
func rawConn(conn net.Conn) (syscall.RawConn, error) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("no descriptor under a %T", conn)
	}
	return c.SyscallConn()
}

// checkSocket refuses a file that is not a socket of this user.
func checkSocket(path string, info fs.FileInfo) error {
	if info.Mode().Type() != fs.ModeSocket {
		return &privatefs.Error{Path: path, Found: "something else", Want: "a socket"}
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Uid != ownUID() {
		return &privatefs.Error{Path: path, Found: "a socket of another user", Want: "one of yours"}
	}
	return nil
}

func nobodyListens(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// queueFull reports whether the listener's queue of connections is full: the daemon does not accept.
func queueFull(err error) bool { return errors.Is(err, syscall.EAGAIN) }

// brokenOff reports whether the other end of an established connection has closed it.
func brokenOff(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
