package frontdoor

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"companion/messages"
)

// taken waits until large bodies hold so many bytes.
func (r *rig) taken(want int) {
	r.t.Helper()
	taken := &r.actor.life.Load().door.memory.taken
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if taken.Load() == int64(want) {
			return
		}
	}
	r.t.Fatalf("%d bytes are held, want %d", taken.Load(), want)
}

// long is a chat whose body has exactly size bytes.
func (r *rig) long(size int) string {
	const before, after = `{"messages":[{"role":"user","content":"`, `"}]}`
	return r.request("POST", "/v1/chat/completions", before+strings.Repeat("x", size-len(before+after))+after)
}

// L6a, L9: a large Content-Length without data reserves no shared memory, and neither do the first bytes of a body,
// up to the size of a small one.
func TestAnnouncedBodies(t *testing.T) {
	r := start(t, llama(t), func(d *Deps) { d.Bounds.BodyMemory = d.Bounds.BodyBytes + 100<<10 })
	const goOn = "HTTP/1.1 100 Continue\r\n\r\n"
	for i := range 32 {
		framing, sent := "Content-Length: 16777216", strings.Repeat("x", freeBody)
		if i%2 == 1 {
			framing, sent = "Transfer-Encoding: chunked", chunk(sent)
		}
		c := r.send(r.request("POST", "/v1/chat/completions", "", "Content-Type: application/json", "Expect: 100-continue", framing))
		_ = c.SetDeadline(time.Now().Add(patience))
		if told, err := io.ReadAll(io.LimitReader(c, int64(len(goOn)))); string(told) != goOn {
			t.Fatalf("connection %d: got %q, %v, want %q", i, told, err, goOn) // its body is not being read
		}
		if _, err := io.WriteString(c, sent); err != nil {
			t.Fatal(err)
		}
	}
	if a := r.one(r.long(300 << 10)); a.status != 200 {
		t.Errorf("a large body: got %+v, want 200", a)
	}
	r.taken(0)
}

// L6a, L9: the memory's bound trips at exactly the configured number, for those who send large
// bodies, and what was held is given back.
func TestBodyMemory(t *testing.T) {
	const size = 200 << 10 // read into 65, 130 and then 200 KiB
	for bound, want := range map[int]int{2*size + 2*freeBuffer: 400, 2*size + 2*freeBuffer - 1: 503} {
		r := start(t, llama(t), func(d *Deps) { d.Bounds.BodyMemory = int64(bound) })
		all := r.long(size)
		first := r.send(all[:len(all)-1])
		r.taken(size)
		second := r.send(all[:len(all)-1])
		if want == 400 {
			r.taken(2 * size)
			if a := r.one(r.long(size)); a.code() != messages.ReasonQueueFull || a.header.Get("Retry-After") == "" {
				t.Errorf("a third large body: got %+v, want queue_full with Retry-After", a)
			}
			_ = second.(*net.TCPConn).CloseWrite()
		}
		if got := status(second, patience); got != want {
			t.Errorf("bound %d: the second got %d, want %d", bound, got, want)
		}
		if a := r.one(r.long(freeBody)); a.status != 200 {
			t.Errorf("a small body: got %+v, want 200", a)
		}
		first.Close()
		r.taken(0)
	}
}

// L6a: the memory of a large body is free again, whether it was answered, refused or cut off.
func TestBodyMemoryIsGivenBack(t *testing.T) {
	r := start(t, llama(t), func(d *Deps) { d.Bounds.BodyBytes, d.Bounds.BodyTime = 300<<10, 200*time.Millisecond })
	good := r.long(200 << 10)
	for name, c := range map[string]struct {
		text   string
		status int
	}{
		"good":         {good, 200},
		"not JSON":     {strings.Replace(good, `{"messages"`, `["messages"`, 1), 400},
		"too large":    {r.request("POST", "/v1/chat/completions", "", "Content-Type: application/json", "Transfer-Encoding: chunked") + chunk(strings.Repeat("x", 301<<10)), 413},
		"does not end": {good[:len(good)-1], 400},
		"bad chunk":    {r.request("POST", "/v1/chat/completions", "", "Content-Type: application/json", "Transfer-Encoding: chunked") + chunk(strings.Repeat("x", 200<<10)) + "z\r\n", 400},
	} {
		if a := r.one(c.text); a.status != c.status {
			t.Errorf("%s: got %+v, want %d", name, a, c.status)
		}
		r.taken(0)
	}
}

// L6, L6a: a large body that waits for its turn is held once: in its new form.
func TestBodyMemoryWhileWaiting(t *testing.T) {
	up := newSlow()
	const size = 200 << 10
	r := start(t, up, func(d *Deps) { d.Bounds.MaxInFlight = 1 })
	for i := range 3 {
		r.send(r.long(size))
		r.wait(1, i)
		r.taken((i + 1) * (size + slack))
	}
	for range 3 {
		<-up.began
		up.release <- struct{}{}
	}
	r.wait(0, 0)
	r.taken(0)
}
