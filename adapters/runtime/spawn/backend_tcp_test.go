package spawn

import (
	"strings"
	"testing"

	"companion/messages"
)

// R3: a runtime on TCP listens on the loopback literal and lets no web page read its answers.
func TestTCPArguments(t *testing.T) {
	got := strings.Join(tcpArguments(messages.BackEnd{Network: "tcp", Address: "127.0.0.1:43121"}), " ")
	if want := "--host 127.0.0.1 --port 43121 --cors-origins https://nobody.invalid --no-cors-credentials"; got != want {
		t.Errorf("got the arguments %q, want %q", got, want)
	}
}
