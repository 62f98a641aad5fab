package spawn

import (
	"net"

	"companion/messages"
)

// tcpArguments makes the runtime listen on a loopback port, for systems without Unix sockets (R3). By default
// llama-server lets pages of every origin read its answers, so the arguments allow one origin that cannot exist.
func tcpArguments(b messages.BackEnd) []string {
	host, port, _ := net.SplitHostPort(b.Address)
	return []string{"--host", host, "--port", port, "--cors-origins", "https://nobody.invalid", "--no-cors-credentials"}
}
