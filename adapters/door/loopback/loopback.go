// Package loopback binds the front door's listener and keeps the endpoint file. The listener can
// only ever be on a loopback literal: what was bound is read back, and anything else is closed
// again (L1). The port is no secret and no control (L2).
package loopback

import (
	"context"
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

// Literal returns the loopback literal that the configured address names: "127.0.0.1" or "[::1]",
// and nothing else (L1).
func Literal(configured string) (netip.Addr, error) {
	switch configured {
	case "127.0.0.1":
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	case "[::1]":
		return netip.IPv6Loopback(), nil
	}
	return netip.Addr{}, failed("the front door's address must be 127.0.0.1 or [::1]")
}

// Listen binds address, a loopback literal as in Literal, on a port that the system picks. again is
// the port of the actor's earlier life, or 0: it is tried first, so that clients find the restarted
// front door where it was; when somebody else has it by now, the system picks. Called by the front
// door actor.
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

// check reads back what was bound.
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

// BaseURL is what clients are told: an OpenAI base URL on the literal.
func BaseURL(bound netip.AddrPort) string {
	return "http://" + net.JoinHostPort(bound.Addr().String(), strconv.Itoa(int(bound.Port()))) + "/v1"
}
