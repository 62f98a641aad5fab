package relay

import (
	"context"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"syscall"
	"testing"
	"time"

	"companion/messages"
)

// narrow listens on a Unix socket whose connection queue is full; full is the number of connections that fill it.
func narrow(t *testing.T) (l net.Listener, target Target, full int) {
	t.Helper()
	dir, err := os.MkdirTemp("", "proxy") // socket paths are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "listener")
	defer file.Close()
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: dir + "/s"}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	if l, err = net.FileListener(file); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for {
		c, err := net.Dial("unix", dir+"/s")
		if err != nil {
			return l, Target{1, messages.BackEnd{Network: "unix", Address: dir + "/s"}}, full
		}
		t.Cleanup(func() { c.Close() })
		if full++; full > 10 {
			t.Fatal("got more than 10 connections in the queue, want it full")
		}
	}
}

// L6: the relay waits for a runtime that is slow to accept a new connection because its queue is full, and does not
// report it as unreachable.
func TestQueueOfTheRuntimeIsFull(t *testing.T) {
	l, target, full := narrow(t)
	r := New(Options{})
	defer r.Close()
	asked := make(chan struct{}, 1)
	go func() {
		<-asked
		for range full {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
		}
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		readRequest(c)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
	}()
	call := Call{Target: target, Path: "/v1/x", Body: []byte("{}"), Gone: func() bool {
		select {
		case asked <- struct{}{}:
		default:
		}
		return false
	}}
	if result := r.Do(t.Context(), httptest.NewRecorder(), call); result.Reason != messages.ReasonOK {
		t.Errorf("got %+v, want ok", result)
	}
}

// L8: the wait ends when the client leaves.
func TestQueueIsLeft(t *testing.T) {
	_, target, _ := narrow(t)
	r := New(Options{})
	defer r.Close()
	begin := time.Now()
	result := r.Do(t.Context(), httptest.NewRecorder(), Call{Target: target, Path: "/v1/x", Body: []byte("{}"), Gone: func() bool { return true }})
	if took := time.Since(begin); !result.Gone || took > dialTime/2 {
		t.Errorf("got %+v after %v, want Gone before the dial times out", result, took)
	}
}

// L6: over TCP the caller waits for a runtime that accepts no new connection, for at most dialTime.
func TestQueueOfTheRuntimeStaysFull(t *testing.T) {
	t.Parallel()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "listener")
	defer file.Close()
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	address := l.Addr().String()
	for {
		c, err := net.DialTimeout("tcp", address, 200*time.Millisecond)
		if err != nil {
			break
		}
		defer c.Close()
	}
	r := New(Options{})
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 4*dialTime)
	defer cancel()
	begin := time.Now()
	result := r.Do(ctx, httptest.NewRecorder(), Call{Target: Target{1, messages.BackEnd{Network: "tcp", Address: address}}, Path: "/v1/x", Body: []byte("{}")})
	if took := time.Since(begin); result.Reason != messages.ReasonRuntimeUnavailable || took > 2*dialTime {
		t.Errorf("got %+v after %v, want runtime_unavailable within twice %v", result, took, dialTime)
	}
}
