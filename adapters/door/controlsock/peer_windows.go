package controlsock

import (
	"errors"
	"io/fs"
	"net"

	"golang.org/x/sys/windows"

	"companion/adapters/privatefs"
)

func ownUID() uint32 { return 0 }

// checkPeer accepts every connection: Windows does not report the user of the other end, so the access list of the
// profile folder is the control. Untested on real machines.
func checkPeer(net.Conn, uint32) error { return nil }

// checkSocket refuses a directory or a regular file; Windows shows a socket as a reparse point.
func checkSocket(path string, info fs.FileInfo) error {
	if info.IsDir() || info.Mode().IsRegular() {
		return &privatefs.Error{Path: path, Found: "something else", Want: "a socket"}
	}
	return nil
}

func nobodyListens(err error) bool {
	return errors.Is(err, windows.WSAECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}

// brokenOff reports whether the other end of an established connection has closed it.
func brokenOff(err error) bool {
	return errors.Is(err, windows.WSAECONNRESET) || errors.Is(err, windows.WSAECONNABORTED)
}

// peerPID fails: Windows does not report the process at the other end.
func peerPID(net.Conn) (int, error) { return 0, errors.ErrUnsupported }

// queueFull reports whether the listener's queue of connections is full.
func queueFull(err error) bool { return false }
