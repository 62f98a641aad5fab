package loopback

import (
	"fmt"
	"syscall"
)

// exclusive keeps other programs from binding the same port, which Windows allows by default (L1).
func exclusive(_, _ string, raw syscall.RawConn) error {
	const soExclusiveAddrUse = ^4 // winsock2.h: (int)(~SO_REUSEADDR)
	var option error
	if err := raw.Control(func(fd uintptr) {
		option = syscall.SetsockoptInt(syscall.Handle(fd), syscall.SOL_SOCKET, soExclusiveAddrUse, 1)
	}); err != nil {
		return fmt.Errorf("reaching the front door's socket: %w", err)
	}
	return option
}
