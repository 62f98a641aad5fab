//go:build !linux

package loopback

import "net/netip"

// Holder returns "": this system does not tell which program listens on a port without more rights.
func Holder(netip.AddrPort) string { return "" }
