package frontdoor

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"companion/adapters/door/loopback"
	"companion/messages"
)

// L14: with a fixed port the front door binds that port or none: it reports that it is not bound, and the log names the
// program that has the port.
func TestFixedPort(t *testing.T) {
	other, at, err := loopback.Listen(t.Context(), "127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan messages.ToLifecycle, 4)
	actor := New(Deps{Address: "127.0.0.1", Port: at.Port(), Bounds: DefaultBounds(), Lifecycle: told, Log: zap.NewNop()})
	if err := actor.Serve(t.Context()); err == nil || !strings.Contains(err.Error(), at.String()+" is taken by ") {
		t.Errorf("a taken port: got %v, want a refusal that names it", err)
	}
	<-told // started
	if got := <-told; got != (messages.DoorLost{Reason: messages.ReasonBindFailed}) {
		t.Errorf("a taken port: got %#v, want DoorLost", got)
	}
	other.Close()
	r := start(t, llama(t), func(d *Deps) { d.Port = at.Port() })
	if want := "http://" + at.String() + "/v1"; r.baseURL != want {
		t.Errorf("base URL: got %s, want %s", r.baseURL, want)
	}
	if got := r.chat(); got.status != 200 {
		t.Errorf("got %d, want 200", got.status)
	}
}

// L14: the front door knows the connections that it has accepted, and no others.
func TestConfirmConnection(t *testing.T) {
	r := start(t, llama(t), nil)
	to := func(client, server string) bool {
		reply := make(chan bool, 1)
		r.box <- messages.ConfirmConnection{Client: netip.MustParseAddrPort(client), Server: netip.MustParseAddrPort(server), Reply: reply}
		return <-reply
	}
	ask := func(client string) bool { return to(client, r.address) }
	own, err := net.Dial("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	if !ask(own.LocalAddr().String()) {
		t.Error("an accepted connection: got denied, want confirmed")
	}
	foreign, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	// The program behind foreign may use the client's address for a connection of its own to the front door.
	if to(own.LocalAddr().String(), foreign.Addr().String()) {
		t.Error("the same client at another listener: got confirmed, want denied")
	}
	unnamed := make(chan bool, 1)
	r.box <- messages.ConfirmConnection{Client: own.LocalAddr().(*net.TCPAddr).AddrPort(), Reply: unnamed}
	if <-unnamed {
		t.Error("without a server: got confirmed, want denied")
	}
	elsewhere, err := net.Dial("tcp", foreign.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	if ask(elsewhere.LocalAddr().String()) {
		t.Error("a connection to another listener: got confirmed, want denied")
	}
	gone := own.LocalAddr().String()
	own.Close()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); { // until the server has noticed
		if !ask(gone) {
			return
		}
	}
	t.Error("a closed connection: got confirmed, want denied")
}
