package download

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"
)

// onRequest are ranges that no public host has and that a private network may use: shared address space
// (RFC 6598), which overlay networks use as well, and benchmarking (RFC 2544), from which local proxies
// take placeholder addresses. A host that the configuration lists may resolve to them.
var onRequest = []netip.Prefix{
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("198.18.0.0/15"),
}

// nat64 is the prefix of addresses with an IPv4 address in their last 32 bits (RFC 6052). Networks without IPv4 use it to
// reach public IPv4 hosts.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// never are ranges of special use that netip has no predicate for (RFC 6890): documentation and reserved
// ones, and those that can carry any IPv4 address inside an IPv6 one.
var never = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/23"),
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("fec0::/10"),
}

// allowedAddress reports whether an artifact may come from ip (M4). listed means that the configuration
// allows this host to resolve to loopback, private and shared addresses. Link-local addresses, where cloud providers serve
// credentials, and all other special-purpose addresses are always refused.
func allowedAddress(ip netip.Addr, listed bool) bool {
	ip = ip.Unmap()
	if nat64.Contains(ip) {
		last := ip.As16()
		return allowedAddress(netip.AddrFrom4([4]byte(last[12:])), false)
	}
	if ip.IsLoopback() || ip.IsPrivate() || within(ip, onRequest) {
		return listed
	}
	return ip.IsGlobalUnicast() && !within(ip, never)
}

func within(ip netip.Addr, prefixes []netip.Prefix) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// addressError means that a host name resolved to a refused address. Its text does not contain the address.
type addressError struct{ placeholder bool }

func (e *addressError) Error() string {
	if e.placeholder {
		return "the host name resolves to a placeholder address of a proxy or VPN on this machine or network; " +
			"let it resolve names of artifact hosts, or list the host in manifest.private_hosts"
	}
	return "the host name resolves to an address that is not public; a network may ask for a sign-in of its own, " +
		"or the host is private and must be listed in manifest.private_hosts"
}

type dialer struct {
	privateHosts []string
	timeout      time.Duration
}

// dial checks each address after the last lookup and before the first packet, which prevents DNS rebinding.
func (d dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	private := d.private(address)
	dialer := net.Dialer{
		Timeout: d.timeout,
		Control: func(_, resolved string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(resolved)
			if err != nil || !allowedAddress(ap.Addr(), private) {
				return &addressError{placeholder: err == nil && within(ap.Addr().Unmap(), onRequest)}
			}
			return nil
		},
	}
	return dialer.DialContext(ctx, network, address)
}

func (d dialer) private(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	for _, p := range d.privateHosts {
		if strings.EqualFold(strings.Trim(p, "[]"), host) {
			return true
		}
	}
	return false
}
