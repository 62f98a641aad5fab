package peer

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// Owner returns the user of the socket at the other end of conn, a TCP connection within this machine, as the kernel's table of
// sockets says. The error is ErrNoOwner where the table has no such socket, and ErrUnsupported where the system does not tell.
func Owner(conn net.Conn) (uid int, err error) {
	here, known := addressOf(conn.LocalAddr())
	there, alsoKnown := addressOf(conn.RemoteAddr())
	if !known || !alsoKnown {
		return 0, fmt.Errorf("%w: not a TCP connection", errors.ErrUnsupported)
	}
	// A socket of the other family can have the same addresses: ::ffff:127.0.0.1 is 127.0.0.1.
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		uid, err := ownerIn(table, there, here)
		if err == nil || !errors.Is(err, ErrNoOwner) && !errors.Is(err, os.ErrNotExist) {
			return uid, err
		}
		if errors.Is(err, os.ErrNotExist) && table == "/proc/net/tcp" {
			return 0, fmt.Errorf("%w: no table of sockets", errors.ErrUnsupported)
		}
	}
	if relayed() {
		return 0, fmt.Errorf("%w: Windows connects from outside", errors.ErrUnsupported)
	}
	return 0, ErrNoOwner
}

// relayed reports whether programs outside this kernel can connect to its loopback addresses: the browser of Windows, in WSL.
func relayed() bool {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	return err == nil && strings.Contains(strings.ToLower(string(release)), "microsoft")
}

func addressOf(a net.Addr) (netip.AddrPort, bool) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	at := tcp.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port()), true
}

// established is the state of an open connection in the table. Some kernels give a socket that its process has closed to root.
const established = "01"

// ownerIn searches a table (proc_pid_net(5)) for the open socket from one address to another.
func ownerIn(table string, from, to netip.AddrPort) (int, error) {
	file, err := os.Open(table)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 8 || fields[3] != established {
			continue
		}
		if local, ok := tableAddress(fields[1]); !ok || local != from {
			continue
		}
		if remote, ok := tableAddress(fields[2]); !ok || remote != to {
			continue
		}
		uid, err := strconv.Atoi(fields[7])
		if err != nil {
			return 0, fmt.Errorf("%w: the table of sockets is malformed", errors.ErrUnsupported)
		}
		return uid, nil
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	return 0, ErrNoOwner
}

// tableAddress parses an address of the table: words of 32 bits in the machine's byte order, and the port.
func tableAddress(text string) (netip.AddrPort, bool) {
	address, portText, found := strings.Cut(text, ":")
	raw, err := hex.DecodeString(address)
	port, portErr := strconv.ParseUint(portText, 16, 16)
	if !found || err != nil || portErr != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for word := raw; len(word) > 0; word = word[4:] {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	parsed, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(parsed.Unmap(), uint16(port)), ok
}
