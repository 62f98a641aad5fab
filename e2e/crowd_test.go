package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"companion/e2e/harness"
	"companion/messages"
)

// Time limits for bad clients. The test waits for the longest.
const crowdSettings = `[runtime]
max_in_flight = 4
queue_bound = 128
queue_timeout = "15s"
[front_door]
max_connections = 4096
rate_per_minute = 100000
head_timeout = "30s"
body_timeout = "30s"
idle_timeout = "30s"
stall_timeout = "20s"
`

const (
	idlers, slowHeads, slowBodies, stallers = 2000, 100, 100, 3
	// moreStallers occupy every slot of the runtime and most of the queue.
	moreStallers = 100
	// endsWithin is twice the longest bound above, for a busy machine.
	endsWithin = 60 * time.Second
	mebibyte   = 1 << 20
)

// L9, T16: many bad clients at once do not affect a good client, cost the daemon little, and are cut off: 2
// 000 that keep an idle connection, 200 that send a head or a body byte by byte, and three that request a
// long stream and do not read it, which occupies three of the runtime's four slots. With 100 more such
// readers, the list of models and the command line still answer.
func TestCrowd(t *testing.T) {
	c := harness.Ready(t, crowdSettings)
	door := c.Door()
	bad := crowd{t: t, address: host(t, door.BaseURL), bearer: "Authorization: Bearer " + door.Token + "\r\n"}
	before := harness.Memory(t, c.Daemon.PID, "VmRSS")
	for range stallers {
		bad.stall()
	}
	for range idlers {
		bad.idle()
	}
	for range slowHeads {
		bad.drip("GET /v1/mod")
	}
	for range slowBodies {
		bad.drip("POST /v1/chat/completions HTTP/1.1\r\nHost: " + bad.address + "\r\n" + bad.bearer +
			"Content-Type: application/json\r\nContent-Length: 10000\r\n\r\n{")
	}
	const dripping = idlers + slowHeads + slowBodies
	if open := bad.open.Load(); open != dripping {
		t.Fatalf("%d connections are open, want %d: this proves nothing", open, dripping)
	}

	for i := range 5 {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		reply := door.Chat(ctx, 2)
		cancel()
		if reply.Status != http.StatusOK {
			t.Errorf("a good request: got %d %s %v, want 200", reply.Status, reply.Code, reply.Err)
		}
		t.Logf("good request %d: %v, beside %d bad connections", i+1, time.Since(began).Round(time.Millisecond), bad.open.Load())
	}
	status, answered := c.Status()
	if !answered || !status.CompanionAvailable || status.FrontDoor.InFlight < stallers {
		t.Errorf("status: got answered %v, available %v, %d in flight, want true, true, at least %d", answered, status.CompanionAvailable, status.FrontDoor.InFlight, stallers)
	}

	for range moreStallers {
		bad.stall()
	}
	c.Await("full of stalled readers", 10*time.Second, func(s messages.Status) bool {
		return s.CompanionAvailable && s.FrontDoor.InFlight+s.FrontDoor.Queued >= moreStallers
	})
	if open := bad.open.Load(); open != dripping {
		t.Errorf("%d other connections are open by then, want %d: this proves nothing", open, dripping)
	}
	if reply := door.Do(t.Context(), http.MethodGet, "/models", ""); reply.Status != http.StatusOK {
		t.Errorf("the models: got %d %s %v, want 200", reply.Status, reply.Code, reply.Err)
	}

	began := time.Now()
	for bad.open.Load() > 0 && time.Since(began) < endsWithin {
		time.Sleep(100 * time.Millisecond)
	}
	if open := bad.open.Load(); open > 0 {
		t.Errorf("%d bad connections are open %v later, want 0", open, endsWithin)
	}
	c.Await("rid of the stalled readers", endsWithin, func(s messages.Status) bool { return s.FrontDoor.InFlight == 0 })
	for _, conn := range bad.stalled {
		rest, err := io.ReadAll(conn)
		if strings.Contains(string(rest), "[DONE]") || os.IsTimeout(err) {
			t.Errorf("a stalled reader got its whole stream or stays connected: got %v, want it cut off", err)
		}
	}
	bound := 100.0
	if harness.RaceBuilt {
		bound = 400
	}
	peak := harness.Memory(t, c.Daemon.PID, "VmHWM")
	t.Logf("resident: %.0f MiB before, %.0f MiB at most", before, peak)
	if peak > bound {
		t.Errorf("the daemon used %.0f MiB, want less than %.0f", peak, bound)
	}
	if reply := door.Chat(t.Context(), 2); reply.Status != http.StatusOK {
		t.Errorf("afterwards a good request: got %d %s, want 200", reply.Status, reply.Code)
	}
	c.Stop()
}

// crowd makes bad clients, and counts those whose connection is open, without the stalled ones.
type crowd struct {
	t               *testing.T
	address, bearer string
	open            atomic.Int64
	stalled         []net.Conn
}

func (b *crowd) dial(dialer net.Dialer, text string) net.Conn {
	b.t.Helper()
	conn, err := dialer.DialContext(b.t.Context(), "tcp", b.address)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, text); err != nil {
		b.t.Fatal(err)
	}
	return conn
}

// watch reads until the connection is closed; refusals may come before.
func (b *crowd) watch(conn net.Conn) {
	b.open.Add(1)
	go func() {
		_, _ = io.Copy(io.Discard, conn)
		b.open.Add(-1)
	}()
}

// idle sends one good request, and then keeps the connection.
func (b *crowd) idle() {
	b.t.Helper()
	conn := b.dial(net.Dialer{}, "GET /v1/models HTTP/1.1\r\nHost: "+b.address+"\r\n"+b.bearer+"\r\n")
	if n, err := conn.Read(make([]byte, 4096)); n == 0 {
		b.t.Fatalf("an idle client: got no answer, want one: %v", err)
	}
	b.watch(conn)
}

// drip sends text, and then single bytes until the connection is closed.
func (b *crowd) drip(text string) {
	b.t.Helper()
	conn := b.dial(net.Dialer{}, text)
	b.watch(conn)
	go func() {
		for {
			time.Sleep(500 * time.Millisecond)
			if _, err := conn.Write([]byte("a")); err != nil {
				return
			}
		}
	}()
}

// stall requests a stream of some megabytes and does not read it. Small windows and segments keep the kernel
// from buffering much of it.
func (b *crowd) stall() {
	b.t.Helper()
	small := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		controlErr := raw.Control(func(fd uintptr) {
			if err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096); err == nil {
				err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 536)
			}
		})
		if err == nil {
			err = controlErr
		}
		return err
	}}
	body := harness.Question(3900, `,"stream":true,"logprobs":true,"top_logprobs":20`)
	conn := b.dial(small, post(b.address, "/v1/chat/completions", b.bearer+"Connection: close\r\n", body))
	if err := conn.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		b.t.Fatal(err)
	}
	b.stalled = append(b.stalled, conn)
}
