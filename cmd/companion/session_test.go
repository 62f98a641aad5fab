package main

import (
	"strings"
	"testing"

	"companion/adapters/authority/browser"
)

// O12: the command for the other end of an SSH session names the port, both families, and nothing that a shell would read.
func TestForwardCommand(t *testing.T) {
	for _, row := range []struct{ page, ssh, user, want string }{
		{"http://127.0.0.1:4321/start/x", "192.0.2.1 5 192.0.2.2 22", "ada", "ssh -N -L 127.0.0.1:4321:127.0.0.1:4321 ada@192.0.2.2"},
		{"http://[::1]:4321/start/x", "2001:db8::1 5 2001:db8::2 22", "ada", "ssh -N -L [::1]:4321:[::1]:4321 ada@2001:db8::2"},
		{"http://127.0.0.1:4321/start/x", "", "", "ssh -N -L 127.0.0.1:4321:127.0.0.1:4321 HOST"},
		{"http://127.0.0.1:4321/start/x", "1 2 $(reboot) 4", "a;b c", "ssh -N -L 127.0.0.1:4321:127.0.0.1:4321 HOST"},
	} {
		getenv := func(name string) string { return map[string]string{"SSH_CONNECTION": row.ssh, "USER": row.user}[name] }
		if got := forwardCommand(row.page, getenv); got != row.want {
			t.Errorf("%s over %q: got %q, want %q", row.page, row.ssh, got, row.want)
		}
	}
}

// O12: every place where no browser is opened, or where it may not reach the page, has its advice.
func TestLoginAdvice(t *testing.T) {
	for place, want := range map[browser.Place]string{
		browser.PlaceDesktop: "", browser.PlaceSSH: "ssh -N -L", browser.PlaceWSL: "localhostForwarding", browser.PlaceHeadless: "ssh -N -L 127.0.0.1:1:127.0.0.1:1 ",
	} {
		got := loginAdvice(place, "http://127.0.0.1:1/start/x", func(string) string { return "" })
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q in it", place, got, want)
		}
	}
}
