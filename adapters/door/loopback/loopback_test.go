package loopback

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// L1: the bound address is the requested literal, on a port that the system chooses.
func TestListen(t *testing.T) {
	for address, ip := range map[string]string{"127.0.0.1": "127.0.0.1", "[::1]": "::1"} {
		l, bound, err := Listen(t.Context(), address, 0)
		if err != nil {
			t.Fatalf("%s: got %v, want a listener", address, err)
		}
		defer l.Close()
		if bound.Addr() != netip.MustParseAddr(ip) || bound.Port() == 0 {
			t.Errorf("%s: got bound to %v, want that address", address, bound)
		}
		if want := "http://" + bound.String() + "/v1"; BaseURL(bound) != want {
			t.Errorf("got base URL %s, want %s", BaseURL(bound), want)
		}
	}
}

// L1: only the two literals can be configured.
func TestNoOtherAddress(t *testing.T) {
	for _, address := range []string{"", "0.0.0.0", "::", "[::]", "::1", "localhost", "127.0.0.2", "127.1", "127.0.0.1:80", "192.168.1.1", "[::ffff:127.0.0.1]", "example.com", "*", " 127.0.0.1"} {
		_, _, err := Listen(t.Context(), address, 0)
		var e *Error
		if !errors.As(err, &e) || e.Reason != messages.ReasonBindFailed {
			t.Errorf("%q: got %v, want an error with its reason", address, err)
		}
	}
}

// L1: the bound address is read back, and any address but the requested one is refused.
func TestCheck(t *testing.T) {
	four := netip.MustParseAddr("127.0.0.1")
	for name, a := range map[string]net.Addr{
		"wildcard": &net.TCPAddr{IP: net.IPv4zero, Port: 1},
		"routable": &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1},
		"six":      &net.TCPAddr{IP: net.IPv6loopback, Port: 1},
		"mapped":   &net.TCPAddr{IP: net.ParseIP("::ffff:127.0.0.1"), Port: 0},
		"no port":  &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1).To4()},
		"not TCP":  &net.UnixAddr{Name: "x", Net: "unix"},
	} {
		if _, err := check(a, four); err == nil {
			t.Errorf("%s: got accepted, want refused", name)
		}
	}
}

// L1, T4: the port is exclusive: no other program can bind it while the front door listens, and when another program
// has the earlier port, the front door takes another one.
func TestPortIsNotShared(t *testing.T) {
	first, bound, err := Listen(t.Context(), "127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if other, err := net.Listen("tcp4", bound.String()); err == nil {
		other.Close()
		t.Fatal("got a second listener on the port, want it refused")
	}
	second, moved, err := Listen(t.Context(), "127.0.0.1", bound.Port())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if moved.Port() == bound.Port() {
		t.Fatal("got two listeners on one port, want one")
	}
	first.Close()
	third, back, err := Listen(t.Context(), "127.0.0.1", bound.Port())
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	if back != bound {
		t.Errorf("got %v, want the earlier port, which is free", back)
	}
}

// T4: parallel starts get different ports.
func TestParallelStarts(t *testing.T) {
	var mu sync.Mutex
	seen := map[netip.AddrPort]bool{}
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			l, bound, err := Listen(t.Context(), "127.0.0.1", 0)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { l.Close() })
			mu.Lock()
			defer mu.Unlock()
			if seen[bound] {
				t.Errorf("got %v twice, want different ports", bound)
			}
			seen[bound] = true
		})
	}
	wg.Wait()
}

// L2: the endpoint file is read back whole, and is gone after its removal.
func TestEndpointFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "endpoint.json")
	want := Endpoint{"http://127.0.0.1:43121/v1", 7, time.Unix(1e9, 0).UTC()}
	if err := WriteEndpoint(path, want); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadEndpoint(path); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	data, _ := os.ReadFile(path)
	if !strings.HasPrefix(string(data), `{"baseURL":"http://127.0.0.1:43121/v1","pid":7,"startedAt":`) {
		t.Errorf("got the file %s, want the endpoint", data)
	}
	if err := RemoveEndpoint(path); err != nil {
		t.Error(err)
	}
	if err := RemoveEndpoint(path); err != nil {
		t.Errorf("removing it twice: got %v, want nil", err)
	}
	if _, err := ReadEndpoint(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: got %v, want fs.ErrNotExist", err)
	}
}

// L14: a fixed port is bound or refused; the system never chooses another one. It is the same again after a close.
func TestListenAt(t *testing.T) {
	first, bound, err := Listen(t.Context(), "127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	var refused *Error
	if l, _, err := ListenAt(t.Context(), "127.0.0.1", bound.Port()); !errors.As(err, &refused) || l != nil || !strings.Contains(err.Error(), bound.String()+" is taken by ") {
		t.Errorf("a taken port: got %v, want a refusal that names it", err)
	}
	first.Close()
	second, again, err := ListenAt(t.Context(), "127.0.0.1", bound.Port())
	if err != nil || again != bound {
		t.Fatalf("a free port: got %v, %v, want %v", again, err, bound)
	}
	second.Close()
	for name, c := range map[string]struct {
		address string
		port    uint16
	}{"no port": {"127.0.0.1", 0}, "wildcard": {"0.0.0.0", bound.Port()}, "name": {"localhost", bound.Port()}} {
		if _, _, err := ListenAt(t.Context(), c.address, c.port); !errors.As(err, &refused) {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
}
