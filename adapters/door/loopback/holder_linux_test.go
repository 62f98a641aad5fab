package loopback

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
)

// L14: the refusal of a taken port names the program that listens there, on the address itself or on all of them. A
// listener on another address or port is not named.
func TestHolder(t *testing.T) {
	name, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	me := fmt.Sprintf("%s (process %d)", strings.TrimSpace(string(name)), os.Getpid())
	for _, address := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		port := uint16(l.Addr().(*net.TCPAddr).Port)
		at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
		if got := Holder(at); got != me {
			t.Errorf("%s: got %q, want %q", address, got, me)
		}
		if _, _, err := ListenAt(t.Context(), "127.0.0.1", port); err == nil || !strings.Contains(err.Error(), at.String()+" is taken by "+me) {
			t.Errorf("%s: got %v, want the holder named", address, err)
		}
		if address == "127.0.0.1:0" {
			if got := Holder(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), port)); got != "" {
				t.Errorf("another address: got %q, want no holder", got)
			}
		}
		l.Close()
		if got := Holder(at); got != "" {
			t.Errorf("a free port: got %q, want no holder", got)
		}
	}
}

// L14: rows of /proc/net/tcp and tcp6, in the byte order of this machine.
func TestListenerRow(t *testing.T) {
	word := func(b ...byte) string {
		var native [4]byte
		binary.NativeEndian.PutUint32(native[:], binary.BigEndian.Uint32(b))
		return strings.ToUpper(hex.EncodeToString(native[:]))
	}
	row := func(address, state string) string {
		return "   0: " + address + ":10E1 00000000:0000 " + state + " 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0"
	}
	four, zero := word(127, 0, 0, 1), word(0, 0, 0, 0)
	at := netip.MustParseAddrPort("127.0.0.1:4321")
	for text, want := range map[string]bool{
		row(four, "0A"): true, row(zero, "0A"): true, row(zero+zero+zero+zero, "0A"): true, row(zero+zero+word(0, 0, 255, 255)+four, "0A"): true,
		row(four, "01"): false, row(word(127, 0, 0, 2), "0A"): false, row(zero+zero+zero+word(0, 0, 0, 1), "0A"): false,
		row("ABC", "0A"): false, row("", "0A"): false, "": false, "sl local_address rem_address st": false,
		strings.Replace(row(four, "0A"), "10E1", "10E2", 1): false, strings.Replace(row(four, "0A"), "10E1", "x", 1): false,
	} {
		uid, inode, ok := listener(text, at)
		if ok != want || ok && (uid != "1000" || inode != "4711") {
			t.Errorf("%q: got %v, user %s, inode %s, want %v, user 1000, inode 4711", text, ok, uid, inode, want)
		}
	}
	if _, _, ok := listener(row(zero+zero+zero+word(0, 0, 0, 1), "0A"), netip.MustParseAddrPort("[::1]:4321")); !ok {
		t.Error("[::1]: got no listener, want one")
	}
}
