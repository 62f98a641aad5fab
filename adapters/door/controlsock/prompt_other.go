//go:build !linux

package controlsock

import "net"

// prompt returns conn: no other system was seen to need more.
func prompt(conn net.Conn) net.Conn { return conn }
