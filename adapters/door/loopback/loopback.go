// Package loopback opens the TCP listener of the front door on 127.0.0.1 or [::1], and keeps the endpoint
// file with which local clients find it. It reads the bound address back, and closes a listener on any other
// address (L1). The port is neither a secret nor a control (L2).
package loopback

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"companion/messages"
)

// Error says why there is no listener. Its reason is always messages.ReasonBindFailed.
type Error struct {
	Reason messages.Reason
	err    error
}

func (e *Error) Error() string { return e.err.Error() }
func (e *Error) Unwrap() error { return e.err }

func failed(format string, args ...any) error {
	return &Error{messages.ReasonBindFailed, fmt.Errorf(format, args...)}
}

// Literal returns the loopback literal for the configured address: "127.0.0.1" or "[::1]". Any other address
// is an error (L1).
func Literal(configured string) (netip.Addr, error) {
	switch configured {
	case "127.0.0.1":
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	case "[::1]":
		return netip.IPv6Loopback(), nil
	}
	return netip.Addr{}, failed("the front door's address must be 127.0.0.1 or [::1]")
}

// Listen binds address, a result of Literal, on a port that the system chooses. again is the port of the
// actor's previous run, or 0. It is tried first, so that clients find the restarted front door at the same
// address; if another program has it, the system chooses a port. Called by the front door actor.
func Listen(ctx context.Context, address string, again uint16) (net.Listener, netip.AddrPort, error) {
	ip, err := Literal(address)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	if again != 0 {
		if l, bound, err := listen(ctx, ip, again); err == nil {
			return l, bound, nil
		}
	}
	return listen(ctx, ip, 0)
}

// ListenAt binds address, a result of Literal, on one port and no other (L14). When the port is taken, the error names
// the program that has it, where the system tells.
func ListenAt(ctx context.Context, address string, port uint16) (net.Listener, netip.AddrPort, error) {
	ip, err := Literal(address)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	if port == 0 {
		return nil, netip.AddrPort{}, failed("a fixed port must not be 0")
	}
	l, bound, err := listen(ctx, ip, port)
	if !errors.Is(err, errInUse) {
		return l, bound, err
	}
	at := netip.AddrPortFrom(ip, port)
	if holder := Holder(at); holder != "" {
		return nil, netip.AddrPort{}, failed("%s is taken by %s", at, holder)
	}
	return nil, netip.AddrPort{}, failed("%s is taken by another program", at)
}

func listen(ctx context.Context, ip netip.Addr, port uint16) (net.Listener, netip.AddrPort, error) {
	config := net.ListenConfig{Control: exclusive}
	config.SetMultipathTCP(false)
	network := "tcp4"
	if ip.Is6() {
		network = "tcp6"
	}
	l, err := config.Listen(ctx, network, netip.AddrPortFrom(ip, port).String())
	if err != nil {
		return nil, netip.AddrPort{}, failed("binding the front door: %w", err)
	}
	bound, err := check(l.Addr(), ip)
	if err != nil {
		_ = l.Close()
		return nil, netip.AddrPort{}, err
	}
	return l, bound, nil
}

// check reads the bound address back.
func check(a net.Addr, ip netip.Addr) (netip.AddrPort, error) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, failed("the front door was bound to something that is not TCP")
	}
	bound := tcp.AddrPort()
	if bound.Addr() != ip || !bound.Addr().IsLoopback() || bound.Port() == 0 {
		return netip.AddrPort{}, failed("the front door was bound to another address than the one asked for")
	}
	return bound, nil
}

// BaseURL returns the OpenAI base URL that clients use.
func BaseURL(bound netip.AddrPort) string {
	return "http://" + net.JoinHostPort(bound.Addr().String(), strconv.Itoa(int(bound.Port()))) + "/v1"
}
