package frontdoor

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"companion/messages"
)

const (
	benchStream = `{"messages":[{"role":"user","content":"hi"}],"stream":true}`
	benchHead   = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)

// upstreamEach is an upstream that runs f for every request that it has read.
func upstreamEach(b *testing.B, f func(c net.Conn, body []byte)) messages.BackEnd {
	return serveRaw(b, func(c net.Conn) {
		in := bufio.NewReaderSize(c, 1<<10)
		for {
			length, _, err := readHead(in)
			if err != nil {
				return
			}
			body := make([]byte, max(length, 0))
			if _, err := io.ReadFull(in, body); err != nil {
				return
			}
			f(c, body)
		}
	})
}

// inUse is the memory of heap and stacks after a collection.
func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// BenchmarkFiguresMemory: memory per idle connection (at most 40 KiB) and per open stream (at most 100 KiB). It
// includes the client and the upstream, which run in this process too.
func BenchmarkFiguresMemory(b *testing.B) {
	hold := make(chan struct{})
	backEnd := upstreamEach(b, func(c net.Conn, body []byte) {
		if !bytes.Contains(body, []byte(`"stream":true`)) {
			_, _ = c.Write(fixedAnswer(benchAnswer))
			return
		}
		_, _ = io.WriteString(c, benchHead+chunk("data: 1\n\n"))
		<-hold
	})
	_, _, door := stage(b, "/v1/chat/completions", benchStream, backEnd, nil)
	_, _, quick := stage(b, "/v1/chat/completions", benchChat, backEnd, nil)
	var idle, stream float64
	for b.Loop() {
		if stream > 0 {
			continue // measure only the first round: a later one also frees memory of the rounds before
		}
		open := func(t target, n int, until string) float64 {
			before := inUse()
			var conns []net.Conn
			for range n {
				c, err := net.Dial(t.network, t.address)
				if err != nil {
					b.Fatal(err)
				}
				conns = append(conns, c)
				if _, err := c.Write(t.request); err != nil {
					b.Fatal(err)
				}
				var got []byte
				for piece := make([]byte, 512); !bytes.Contains(got, []byte(until)); {
					m, err := c.Read(piece)
					if err != nil {
						b.Fatal(err)
					}
					got = append(got, piece[:m]...)
				}
			}
			per := float64(inUse()-before) / float64(n) / 1024
			for _, c := range conns {
				_ = c.Close()
			}
			return per
		}
		idle, stream = open(quick, 500, "chatcmpl-1"), open(door, 100, "data: 1")
		b.Logf("idle connection %.1f KiB (must be at most 40), open stream %.1f KiB (at most 100)", idle, stream)
	}
	b.ReportMetric(idle, "KiB/idle")
	b.ReportMetric(stream, "KiB/stream")
	close(hold)
}

// The crowd of BenchmarkFiguresLoad.
const loadIdle, loadSlow, loadStalled = 2000, 200, 100

// BenchmarkFiguresLoad: 2 000 idle connections, 200 slow heads and 100 stalled readers at once; the
// good client's p99 at most twice its unloaded one.
func BenchmarkFiguresLoad(b *testing.B) {
	var streams atomic.Int64
	backEnd := upstreamEach(b, func(c net.Conn, body []byte) {
		if !bytes.Contains(body, []byte(`"stream":true`)) {
			_, _ = c.Write(fixedAnswer(benchAnswer))
			return
		}
		streams.Add(1)
		defer streams.Add(-1)
		_, _ = io.WriteString(c, benchHead)
		event := chunk("data: " + strings.Repeat("x", 4000) + "\n\n")
		for {
			if _, err := io.WriteString(c, event); err != nil {
				return
			}
		}
	})
	_, _, door := stage(b, "/v1/chat/completions", benchChat, backEnd, func(d *Deps) {
		d.Bounds.Connections = 4096
		d.Bounds.HeadTime, d.Bounds.WriteStall = time.Minute, time.Minute // no connection is cut off during the measurement
	})
	for b.Loop() {
		measure := func() time.Duration {
			c := door.dial(b)
			defer c.c.Close()
			var all []time.Duration
			for range 5000 {
				begin := time.Now()
				if status := c.do(b); status != http.StatusOK {
					b.Fatalf("the good client got %d, want 200", status)
				}
				all = append(all, time.Since(begin))
			}
			return quantile(all, 0.99)
		}
		before := min(measure(), measure())
		crowd := gather(b, door)
		time.Sleep(2 * time.Second) // the stalled readers' buffers are full
		crowd.count(b, streams.Load())
		during := min(measure(), measure())
		crowd.count(b, streams.Load())
		crowd.leave()
		b.ReportMetric(float64(during)/float64(before), "p99_ratio")
		b.Logf("the good client's p99: unloaded %v, under load %v: ratio %.2f (must be at most 2)", before, during, float64(during)/float64(before))
	}
}

// crowd are the bad connections that are open while the good client is measured.
type crowd struct {
	conns []net.Conn
	open  atomic.Int64 // idle and slow ones
	wg    sync.WaitGroup
}

// gather connects stalled readers, idle clients that were answered once, and some that send a head
// byte by byte.
func gather(b *testing.B, door target) *crowd {
	w := new(crowd)
	connect := func() *client {
		c := door.dial(b)
		w.conns = append(w.conns, c.c)
		return c
	}
	watch := func(c net.Conn) {
		w.open.Add(1)
		w.wg.Go(func() {
			_, _ = io.Copy(io.Discard, c)
			w.open.Add(-1)
		})
	}
	stalled := strings.Replace(string(door.request), benchChat, benchStream, 1)
	stalled = strings.Replace(stalled, fmt.Sprintf("Content-Length: %d", len(benchChat)), fmt.Sprintf("Content-Length: %d", len(benchStream)), 1)
	for range loadStalled {
		if _, err := io.WriteString(connect().c, stalled); err != nil {
			b.Fatal(err)
		}
	}
	for range loadIdle {
		c := connect()
		if status := c.do(b); status != http.StatusOK {
			b.Fatalf("an idle client got %d, want 200", status)
		}
		watch(c.c)
	}
	for range loadSlow {
		c := connect().c
		watch(c)
		w.wg.Go(func() {
			for piece := "G"; ; piece = "a" { // a method that never ends
				if _, err := io.WriteString(c, piece); err != nil {
					return
				}
				time.Sleep(250 * time.Millisecond)
			}
		})
	}
	return w
}

// count checks that all bad connections are open.
func (w *crowd) count(b *testing.B, streams int64) {
	b.Helper()
	if open := w.open.Load(); open != loadIdle+loadSlow || streams != loadStalled {
		b.Fatalf("got %d idle and slow connections and %d stalled readers, want %d and %d: this measures nothing", open, streams, loadIdle+loadSlow, loadStalled)
	}
}

func (w *crowd) leave() {
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.wg.Wait()
}
