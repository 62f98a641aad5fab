package download

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"companion/messages"
)

// M4, T6: no connection is made to a host that resolves to the user's own network.
func TestPrivateAddressRefused(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	accepted := make(chan struct{}, 8)
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			accepted <- struct{}{}
			_ = c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	for host, private := range map[string][]string{
		"127.0.0.1": nil, "localhost": {"other.example"}, "[::ffff:127.0.0.1]": {"127.0.0.1"},
	} {
		origin := "https://" + host + ":" + port
		err := New(nil, time.Second).Fetch(t.Context(), Request{URL: origin + "/g", Origins: []string{origin}, PrivateHosts: private}, &memory{})
		var e *Error
		if !errors.As(err, &e) || e.Reason != messages.ReasonAddressNotAllowed || e.Permanent {
			t.Errorf("%s: got %v, want a temporary address_not_allowed", host, err)
		}
	}
	if len(accepted) != 0 {
		t.Fatalf("got %d connections, want none", len(accepted))
	}
	origin := "https://localhost:" + port
	err = New(nil, time.Second).Fetch(t.Context(), Request{URL: origin + "/g", Origins: []string{origin}, PrivateHosts: []string{"LOCALHOST"}}, &memory{})
	if reasonOf(err) != messages.ReasonTransferFailed || len(accepted) == 0 {
		t.Fatalf("listed host: got %v and %d connections, want transfer_failed after a connection", err, len(accepted))
	}
}

// M4: allowed addresses, for hosts that the configuration lists and for others.
func TestAllowedAddress(t *testing.T) {
	for _, c := range []struct {
		address         string
		public, private bool
	}{
		{"93.184.215.14", true, true},
		{"2606:2800:21f:cb07:6820:80da:af6b:8b2c", true, true},
		{"127.0.0.1", false, true},
		{"127.9.9.9", false, true},
		{"::1", false, true},
		{"::ffff:127.0.0.1", false, true},
		{"10.1.2.3", false, true},
		{"172.31.0.1", false, true},
		{"192.168.1.1", false, true},
		{"fd00::1", false, true},
		{"::ffff:10.0.0.1", false, true},
		{"169.254.169.254", false, false},
		{"::ffff:169.254.169.254", false, false},
		{"fe80::1", false, false},
		{"0.0.0.0", false, false},
		{"0.1.2.3", false, false},
		{"::", false, false},
		{"224.0.0.1", false, false},
		{"ff02::1", false, false},
		{"255.255.255.255", false, false},
		{"240.0.0.1", false, false},
		{"100.64.0.1", false, true},
		{"198.18.0.1", false, true},
		{"::ffff:198.19.255.255", false, true},
		{"64:ff9b::5db8:d70e", true, true}, // 93.184.215.14, as an IPv6-only network reaches it
		{"64:ff9b::a01:203", false, false}, // 10.1.2.3
		{"64:ff9b::c612:1", false, false},  // 198.18.0.1
		{"64:ff9b::a9fe:a9fe", false, false},
		{"64:ff9b:1::5db8:d70e", false, false},
		{"64:ff9b::7f00:1", false, false},
		{"2002:7f00:1::", false, false},
		{"::7f00:1", false, false},
		{"fec0::1", false, false},
	} {
		ip := netip.MustParseAddr(c.address)
		if got := allowedAddress(ip, false); got != c.public {
			t.Errorf("%s unlisted: got %v, want %v", c.address, got, c.public)
		}
		if got := allowedAddress(ip, true); got != c.private {
			t.Errorf("%s listed: got %v, want %v", c.address, got, c.private)
		}
	}
}
