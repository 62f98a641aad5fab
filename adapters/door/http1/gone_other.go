//go:build !unix

package http1

import "net"

// peer is not implemented for this system; readAhead is used instead.
type peer struct{}

func (peer) left(net.Conn) (left, known bool) { return false, false }

func readNow(c net.Conn, p []byte) (int, error) { return readSoon(c, p) }
