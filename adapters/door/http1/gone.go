package http1

import (
	"errors"
	"net"
	"os"
	"time"
)

// Gone reports whether the client has left, without waiting; one that has closed its side counts as
// gone. Whoever lets a request wait asks now and then; from then on the request's context has ended.
// Call it on the handler's goroutine, after the body was read.
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

// readAhead looks for the end of what the client sends, by reading it into the buffer. Behind more
// than a buffer the end cannot be seen.
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

// readSoon is readNow for connections that cannot be asked directly: it waits a millisecond.
func readSoon(c net.Conn, p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		return 0, err
	}
	return c.Read(p)
}
