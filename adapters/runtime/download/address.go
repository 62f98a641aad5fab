package download

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// neverPublic are ranges of special use that netip has no predicate for (RFC 6890): shared, benchmark,
// documentation and reserved ones, and those that carry an IPv4 address inside an IPv6 one, behind
// which any private address could hide.
var neverPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/96"),
	netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/23"),
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("fec0::/10"),
}

// allowedAddress decides whether an artifact may come from ip (M4). Private says that the configuration
// lets this host resolve to loopback and private addresses; link-local ones, where clouds keep their
// credentials, and all others of special use stay refused.
func allowedAddress(ip netip.Addr, private bool) bool {
	ip = ip.Unmap()
	if ip.IsLoopback() || ip.IsPrivate() {
		return private
	}
	if !ip.IsGlobalUnicast() {
		return false
	}
	for _, p := range neverPublic {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}

// addressError says that a host led to an address that is refused. The address is not in its text.
type addressError struct{}

func (*addressError) Error() string { return "the address is refused" }

type dialer struct {
	privateHosts []string
	timeout      time.Duration
}

// dial checks each resolved address after the last lookup and before the first packet, so that a name
// which resolves differently the second time gains nothing.
func (d dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	private := d.private(address)
	dialer := net.Dialer{
		Timeout: d.timeout,
		Control: func(_, resolved string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(resolved)
			if err != nil || !allowedAddress(ap.Addr(), private) {
				return &addressError{}
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
