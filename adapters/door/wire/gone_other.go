//go:build !unix

package wire

import "net"

func readNow(c net.Conn, p []byte) (int, error) { return readSoon(c, p) }
