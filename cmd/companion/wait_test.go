package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"companion/adapters/door/controlsock"
)

// `companion run &` and then `companion status --wait`: the wait takes a daemon that is about to start for one that starts, and
// one that stays away for one that does not run.
func TestWaitForAStartingDaemon(t *testing.T) {
	dir, err := os.MkdirTemp("", "c") // of a test's own name, it could be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "companion", "control.sock")
	if _, err := awaitAvailable(t.Context(), controlsock.Dial(socket), time.Minute); !errors.Is(err, controlsock.ErrNotRunning) {
		t.Errorf("no daemon: got %v, want that it does not run", err)
	}
	fake := answering{status: working()}
	server := controlsock.Server{View: fake, SignIn: fake, Catalogue: fake, Runtime: fake, Endpoint: fake, Log: zap.NewNop()}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	later := time.AfterFunc(300*time.Millisecond, func() {
		listener, err := controlsock.Listen(socket, func(error) {})
		if err != nil {
			served <- err
			return
		}
		served <- server.Serve(ctx, listener)
	})
	defer later.Stop()
	status, err := awaitAvailable(t.Context(), controlsock.Dial(socket), time.Minute)
	if err != nil || !status.CompanionAvailable {
		t.Errorf("a daemon that starts: got %v, available %t; want it available", err, status.CompanionAvailable)
	}
	cancel()
	<-served
}
