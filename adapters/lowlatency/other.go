//go:build !linux

package lowlatency

import "net"

// Conn returns c.
func Conn(c net.Conn) net.Conn { return c }

// ShortenSlices does nothing.
func ShortenSlices() error { return nil }

// LowerSession does nothing.
func LowerSession(int) {}
