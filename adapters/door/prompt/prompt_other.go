//go:build !linux

package prompt

import "net"

// Conn returns c.
func Conn(c net.Conn) net.Conn { return c }
