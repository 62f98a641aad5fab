package peer

import (
	"errors"
	"fmt"
	"net"

	gopsnet "github.com/shirou/gopsutil/v3/net"
)

// Check returns nil when the process pid listens on the TCP port at the other end of conn. The error is
// ErrOtherProcess when it does not. Tested under Wine, untested on real machines.
func Check(conn net.Conn, pid int) error {
	port, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return errors.New("not a TCP connection")
	}
	sockets, err := gopsnet.ConnectionsPid("tcp4", int32(pid))
	if err != nil {
		return fmt.Errorf("asking who listens: %w", err)
	}
	for _, s := range sockets {
		if s.Status == "LISTEN" && int(s.Laddr.Port) == port.Port {
			return nil
		}
	}
	return fmt.Errorf("%w: process %d does not listen there", ErrOtherProcess, pid)
}
