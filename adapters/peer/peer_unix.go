//go:build unix

package peer

import (
	"errors"
	"fmt"
	"net"
)

// Check returns nil when the process pid listens at the other end of conn, which must be a Unix socket that this
// process has dialed. The error is ErrOtherProcess when another process does.
func Check(conn net.Conn, pid int) error {
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return errors.New("not a Unix socket")
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return fmt.Errorf("asking who answers: %w", err)
	}
	var listener int
	var asked error
	if err := raw.Control(func(fd uintptr) { listener, asked = processAt(int(fd)) }); err != nil {
		return fmt.Errorf("asking who answers: %w", err)
	}
	if asked != nil {
		return fmt.Errorf("asking who answers: %w", asked)
	}
	if listener != pid {
		return fmt.Errorf("%w: process %d instead of %d", ErrOtherProcess, listener, pid)
	}
	return nil
}
