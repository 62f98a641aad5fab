package http1

import (
	"errors"
	"net"
	"os"
	"time"
)

// Gone reports whether the client has left or closed its side, without waiting. A handler that waits for the
// runtime polls it. Once it has returned true, the context of the request is done. Call it on the handler's
// goroutine, after the body was read.
func (c *Conn) Gone() bool {
	left, known := c.peer.left(c.raw)
	if !known {
		left = c.readAhead()
	}
	if left {
		c.cancel()
	}
	return left
}

// readAhead reads the client's data into the buffer to find its end. It does not find an end that follows more data
// than the buffer holds.
func (c *Conn) readAhead() (ended bool) {
	if c.to == len(c.in) {
		c.to = copy(c.in, c.in[c.from:c.to])
		c.from = 0
	}
	if c.to == len(c.in) {
		return false
	}
	n, err := readNow(c.raw, c.in[c.to:])
	c.to += n
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// readSoon is readNow for connections without a descriptor: it waits a millisecond.
func readSoon(c net.Conn, p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		return 0, err
	}
	return c.Read(p)
}
