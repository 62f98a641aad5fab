//go:build unix

package controlsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"companion/messages"
)

// X2: every call to a daemon that accepts connections and does not answer fails with the daemon's process id, also
// when the daemon stops in the middle of an answer.
func TestUnresponsiveDaemon(t *testing.T) {
	for name, each := range map[string]func(net.Conn){
		"never": func(net.Conn) {},
		"after head": func(conn net.Conn) {
			_, _ = conn.Read(make([]byte, 1)) // the request has begun
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "c.sock")
			ln, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			var conns []net.Conn
			accepted := make(chan struct{})
			go func() {
				defer close(accepted)
				for {
					conn, err := ln.Accept()
					if err != nil {
						return
					}
					conns = append(conns, conn)
					each(conn)
				}
			}()
			defer func() {
				ln.Close()
				<-accepted
				for _, conn := range conns {
					conn.Close()
				}
			}()
			client := Dial(path)
			client.answer, client.probeEvery = 50*time.Millisecond, 20*time.Millisecond
			defer client.http.CloseIdleConnections()
			ctx := t.Context()
			nothing := func(messages.Status) error { return nil }
			for call, do := range map[string]func() error{
				"status":  func() error { _, err := client.Status(ctx); return err },
				"watch":   func() error { return client.Watch(ctx, nothing) },
				"every":   func() error { return client.WatchEvery(ctx, time.Second, nothing) },
				"login":   func() error { _, err := client.Login(ctx, false, func(messages.LoginPage) {}); return err },
				"logout":  func() error { _, err := client.Logout(ctx); return err },
				"whoami":  func() error { _, err := client.WhoAmI(ctx); return err },
				"models":  func() error { _, err := client.Models(ctx); return err },
				"pull":    func() error { _, err := client.Pull(ctx, "m"); return err },
				"prune":   func() error { _, err := client.Prune(ctx, true); return err },
				"added":   func() error { _, err := client.Reload(ctx); return err },
				"start":   func() error { _, err := client.Start(ctx); return err },
				"stop":    func() error { _, err := client.Stop(ctx); return err },
				"restart": func() error { _, err := client.Restart(ctx); return err },
				"reload":  func() error { _, err := client.ReloadTokens(ctx); return err },
			} {
				err := do()
				var silent *UnresponsiveError
				if !errors.As(err, &silent) || silent.PID != os.Getpid() {
					t.Errorf("%s: got %v, want an UnresponsiveError with pid %d", call, err, os.Getpid())
				}
				if want := fmt.Sprintf("the daemon (pid %d) does not answer", os.Getpid()); err == nil || err.Error() != want {
					t.Errorf("%s: got %v, want %q", call, err, want)
				}
			}
		})
	}
}

// X2: a daemon whose connection queue is full counts as unresponsive, not as "not running".
func TestFullQueue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for range 1 << 14 { // net.core.somaxconn is 4096 by default
		conn, err := net.DialTimeout("unix", path, 50*time.Millisecond)
		if err != nil {
			break
		}
		defer conn.Close()
	}
	client := Dial(path)
	client.answer = 50 * time.Millisecond
	var silent *UnresponsiveError
	if _, err := client.Status(t.Context()); !errors.As(err, &silent) {
		t.Errorf("got %v, want an UnresponsiveError", err)
	}
	if err := removeStale(path); err != nil && !strings.Contains(err.Error(), ErrInUse.Error()) {
		// The socket lies in an ordinary test folder of this user, and a process listens.
		t.Errorf("removeStale: got %v, want ErrInUse", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("got %v, want the socket of a listening daemon kept", err)
	}
}

// A long call to a daemon that serves it slowly, and that answers status requests, is not cut off.
func TestSlowCommandIsNotCutOff(t *testing.T) {
	d := &daemon{block: make(chan struct{}), asked: make(chan struct{}, 1)}
	client, _, _ := serve(t, d)
	client.answer, client.probeEvery = time.Minute, 10*time.Millisecond
	done := make(chan error, 1)
	go func() { _, err := client.Pull(context.Background(), "m"); done <- err }()
	<-d.calls
	for range 3 {
		<-d.asked
	}
	close(d.block)
	if err := <-done; err != nil {
		t.Errorf("got %v, want nil", err)
	}
}
