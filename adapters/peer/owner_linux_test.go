package peer

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// O2: Owner returns the user of the process that connected, over IPv4, IPv6 and IPv4 in an IPv6 socket.
func TestOwner(t *testing.T) {
	for _, row := range []struct{ listen, family string }{{"127.0.0.1:0", "4"}, {"[::1]:0", "6"}, {"127.0.0.1:0", "6"}} {
		l, err := net.Listen("tcp", row.listen)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		users := []int{os.Geteuid()}
		if os.Geteuid() == 0 {
			users = append(users, 65534, 4242)
		}
		for _, user := range users {
			dialed := make(chan error, 1)
			var fd int
			go func() {
				dialed <- asUser(user, func() (err error) {
					fd, err = dial(l.Addr().(*net.TCPAddr).AddrPort(), row.family)
					return err
				})
			}()
			if err := <-dialed; err != nil {
				t.Fatal(err)
			}
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if got, err := Owner(conn); err != nil || got != user {
				t.Errorf("%s from an IPv%s socket of user %d: got %d, %v; want that user", row.listen, row.family, user, got, err)
			}
			unix.Close(fd)
			if got, err := Owner(conn); !errors.Is(err, ErrNoOwner) {
				t.Errorf("%s, closed by user %d: got %d, %v; want %v", row.listen, user, got, err, ErrNoOwner)
			}
			conn.Close()
		}
	}
}

func dial(at netip.AddrPort, family string) (int, error) {
	var to unix.Sockaddr = &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	domain := unix.AF_INET6
	if family == "4" {
		domain, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().Unmap().As4()}
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	return fd, unix.Connect(fd, to)
}

// O2: a connection of no socket in the table has no owner, and one that is not TCP has an error of its own.
func TestOwnerUnknown(t *testing.T) {
	if relayed() {
		t.Skip("Windows can connect from outside")
	}
	if _, err := Owner(fake{}); !errors.Is(err, ErrNoOwner) {
		t.Errorf("an absent socket: got %v, want %v", err, ErrNoOwner)
	}
	pipe, other := net.Pipe()
	defer pipe.Close()
	defer other.Close()
	if _, err := Owner(pipe); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a pipe: got %v, want %v", err, errors.ErrUnsupported)
	}
}

// fake is a connection from an address that no socket of this machine has.
type fake struct{ net.Conn }

func (fake) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (fake) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 9, 9, 9), Port: 2} }
