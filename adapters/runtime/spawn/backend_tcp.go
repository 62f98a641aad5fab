package spawn

import (
	"net"

	"companion/messages"
)

// tcpArguments makes the runtime listen on a loopback port, where there are no Unix sockets (R3). By
// default it lets the pages of every origin read its answers: it is told of one that nobody can have.
func tcpArguments(b messages.BackEnd) []string {
	host, port, _ := net.SplitHostPort(b.Address)
	return []string{"--host", host, "--port", port, "--cors-origins", "https://nobody.invalid", "--no-cors-credentials"}
}
