package wire

import (
	"net"
	"time"
)

// readSoon is readNow for connections that cannot be asked directly: it waits a millisecond.
func readSoon(c net.Conn, p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		return 0, err
	}
	return c.Read(p)
}
