package loopback

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Holder describes the program that listens on a port, such as "ollama (process 4711)". When the process is not visible
// to this user, it names the user. It returns "" when nothing is known. Call it only for a port that was refused: it
// looks at the open files of the user's processes.
func Holder(at netip.AddrPort) string {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			if uid, inode, ok := listener(line, at); ok {
				if holder := owner(inode); holder != "" {
					return holder
				}
				return "a program of the user with the id " + uid
			}
		}
	}
	return ""
}

// listener reads a row of /proc/net/tcp: `sl local_address rem_address st tx_queue:rx_queue tr:when retrnsmt uid timeout
// inode …`, with address and port in hex. It reports whether the row is a listener that keeps others from binding at.
func listener(row string, at netip.AddrPort) (uid, inode string, ok bool) {
	const listening = "0A"
	f := strings.Fields(row)
	if len(f) < 10 || f[3] != listening {
		return "", "", false
	}
	address, port, _ := strings.Cut(f[1], ":")
	n, err := strconv.ParseUint(port, 16, 16)
	ip := address4or6(address)
	return f[7], f[9], err == nil && uint16(n) == at.Port() && (ip.IsUnspecified() || ip == at.Addr())
}

// address4or6 reads an address of /proc/net/tcp: words of 32 bits in the byte order of the machine.
func address4or6(text string) netip.Addr {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw)%4 != 0 {
		return netip.Addr{}
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	ip, _ := netip.AddrFromSlice(raw) // of another length: the zero Addr, which no listener has
	return ip.Unmap()
}

// owner finds the process with an open socket by its inode.
func owner(inode string) string {
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != "socket:["+inode+"]" {
			continue
		}
		pid := strings.Split(link, "/")[2]
		name, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			return "process " + pid
		}
		return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), pid)
	}
	return ""
}
