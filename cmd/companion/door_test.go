//go:build unix

package main

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"companion/adapters/door/controlsock"
	"companion/messages"
)

// L14, X4: `env --check` refuses an address where another program than the daemon listens, names that program where the
// system tells, and sends it nothing.
func TestConfirmRefusesForeignListener(t *testing.T) {
	impostor, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer impostor.Close()
	heard := make(chan int, 1)
	go func() {
		conn, err := impostor.Accept()
		if err != nil {
			heard <- -1
			return
		}
		defer conn.Close()
		n, _ := conn.Read(make([]byte, 1))
		heard <- n
	}()
	socket := filepath.Join(t.TempDir(), "run", "control.sock")
	listener, err := controlsock.Listen(socket, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	fake := answering{reason: messages.ReasonOK}
	server := controlsock.Server{View: fake, SignIn: fake, Catalogue: fake, Runtime: fake, Endpoint: fake, Log: zap.NewNop()}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, listener) }()
	defer func() { cancel(); <-done }()

	d := door{baseURL: "http://" + impostor.Addr().String() + "/v1", token: messages.NewSecret("tok"), control: controlsock.Dial(socket)}
	var f *failure
	if err := d.confirm(t.Context()); !errors.As(err, &f) || f.exit != exitIntegrity || !strings.Contains(f.message, impostor.Addr().String()) {
		t.Errorf("got %v, want a refusal with status %d that names the address", err, exitIntegrity)
	}
	if got := <-heard; got != 0 {
		t.Errorf("the other program got %d bytes, want none", got)
	}
	impostor.Close()
	if err := d.confirm(t.Context()); !errors.As(err, &f) || f.exit != exitUnavailable {
		t.Errorf("nothing listens: got %v, want status %d", err, exitUnavailable)
	}
}
