package spawn

import (
	"errors"
	"net"
	"strconv"

	"golang.org/x/sys/windows"

	"companion/messages"
)

// backEndIn chooses a loopback port for the runtime (R3), because the runtime accepts a port but does not report one.
// Another program may take the port before the runtime binds it; the check of the peer in Health detects that. Tested
// under Wine, untested on real machines.
func backEndIn(string) (messages.BackEnd, error) {
	socket, err := windows.Socket(windows.AF_INET, windows.SOCK_STREAM, 0)
	if err != nil {
		return messages.BackEnd{}, err
	}
	defer func() { _ = windows.Closesocket(socket) }()
	if err := windows.Bind(socket, &windows.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return messages.BackEnd{}, err
	}
	bound, err := windows.Getsockname(socket)
	if err != nil {
		return messages.BackEnd{}, err
	}
	address, ok := bound.(*windows.SockaddrInet4)
	if !ok {
		return messages.BackEnd{}, errors.New("the system chose no port")
	}
	return messages.BackEnd{Network: "tcp", Address: net.JoinHostPort("127.0.0.1", strconv.Itoa(address.Port))}, nil
}

func backEndArguments(b messages.BackEnd) []string { return tcpArguments(b) }

// checkAddress has nothing to check: there is no socket file.
func checkAddress(messages.BackEnd) error { return nil }
