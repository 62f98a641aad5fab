package frontdoor

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"companion/messages"
)

// The figures of "The front door" in docs/benchmarks.md, all in one run:
//
//	go test -run '^$' -bench Figures ./adapters/door/guard ./actors/door/frontdoor
//
// "bare" is httputil.ReverseProxy over the same Unix socket; "direct" is the socket itself. The
// targets take turns, so that other work on the machine affects all of them equally.

const benchChat = `{"model":"gemma","messages":[{"role":"system","content":"You are helpful."},{"role":"user","content":"Say hello to the world, please."}],"max_tokens":16,"temperature":0.7}`

var benchAnswer = `{"choices":[{"finish_reason":"stop","index":0,"message":{"role":"assistant","content":"` + strings.Repeat("Hello, world. ", 20) + `"}}],"created":1,"model":"gemma","object":"chat.completion","usage":{"completion_tokens":16,"prompt_tokens":20,"total_tokens":36},"id":"chatcmpl-1"}`

// target is one way to the upstream: where to connect, and what to send.
type target struct {
	name             string
	network, address string
	request          []byte
}

// stage builds the upstream, the bare proxy and the door once, for all measurements.
func stage(b *testing.B, path, body string, backEnd messages.BackEnd, change func(*Deps)) (direct, bare, door target) {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) { p.Out.URL.Scheme, p.Out.URL.Host = "http", "localhost" },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, backEnd.Network, backEnd.Address)
			},
			MaxIdleConnsPerHost: 256, MaxIdleConns: 256, DisableCompression: true,
		},
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: proxy}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	b.Cleanup(func() {
		_ = server.Close()
		<-done
		proxy.Transport.(*http.Transport).CloseIdleConnections()
	})
	file, err := os.Create(filepath.Join(b.TempDir(), "log"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = file.Close() })
	r := start(b, http.NotFoundHandler(), func(d *Deps) {
		d.Bounds.RatePerMinute, d.Bounds.MaxInFlight, d.Bounds.QueueBound = 1<<22, 256, 256
		d.Log = zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), file, zap.InfoLevel))
		if change != nil {
			change(d)
		}
	})
	s := r.snapshot.Get()
	s.Launch, s.BackEnd = 2, backEnd
	r.snapshot.Set(s)
	at := func(name, network, address, host string) target {
		head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nUser-Agent: bench\r\nAccept: */*\r\nContent-Length: %d\r\n\r\n", path, host, token, len(body))
		return target{name, network, address, []byte(head + body)}
	}
	return at("direct", "unix", backEnd.Address, "localhost"), at("bare", "tcp", l.Addr().String(), l.Addr().String()), at("door", "tcp", r.address, r.address)
}

// client is a connection that costs as little as a client can.
type client struct {
	t  target
	c  net.Conn
	in *bufio.Reader
}

func (t target) dial(b *testing.B) *client {
	c, err := net.Dial(t.network, t.address)
	if err != nil {
		b.Fatal(err)
	}
	return &client{t, c, bufio.NewReaderSize(c, 16<<10)}
}

// do sends the request and reads the answer; it returns the status.
func (c *client) do(b *testing.B) int {
	if _, err := c.c.Write(c.t.request); err != nil {
		b.Fatalf("%s: %v", c.t.name, err)
	}
	length, status, err := readHead(c.in)
	if err != nil {
		b.Fatalf("%s: %v", c.t.name, err)
	}
	if length < 0 {
		b.Fatalf("%s: got an answer of status %d without length, want Content-Length", c.t.name, status)
	}
	if _, err := c.in.Discard(length); err != nil {
		b.Fatalf("%s: %v", c.t.name, err)
	}
	return status
}

// readHead reads a head to its end, and returns the Content-Length and, of an answer, the status.
func readHead(in *bufio.Reader) (length, status int, err error) {
	length = -1
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		switch {
		case err != nil:
			return 0, 0, err
		case len(line) == 2:
			return length, status, nil
		case first:
			status, _ = strconv.Atoi(string(line[9:12]))
		case len(line) > 16 && bytes.EqualFold(line[:15], []byte("Content-Length:")):
			length, _ = strconv.Atoi(strings.TrimSpace(string(line[15:])))
		}
	}
}

func quantile(all []time.Duration, q float64) time.Duration {
	slices.Sort(all)
	return all[min(len(all)-1, int(q*float64(len(all))))]
}

// serveRaw serves a Unix socket with a goroutine per connection.
func serveRaw(b *testing.B, serve func(net.Conn)) messages.BackEnd {
	dir, err := os.MkdirTemp("", "door")
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	var loops sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	loops.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			loops.Go(func() { serve(c) })
		}
	})
	b.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		loops.Wait()
		_ = os.RemoveAll(dir)
	})
	return messages.BackEnd{Network: "unix", Address: path}
}

// lean is an upstream that does as little as possible, so that the benchmarks measure the path to it.
func lean(b *testing.B, answer []byte) messages.BackEnd {
	return serveRaw(b, func(c net.Conn) {
		in := bufio.NewReaderSize(c, 16<<10)
		for {
			length, _, err := readHead(in)
			if err != nil {
				return
			}
			if _, err := in.Discard(max(length, 0)); err != nil {
				return
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	})
}

func fixedAnswer(answer string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\nServer: llama.cpp\r\nAccess-Control-Allow-Origin: \r\nKeep-Alive: timeout=5, max=100\r\n\r\n%s", len(answer), answer)
}

// BenchmarkFiguresLatency: added p50 and p99 over the direct socket, small chat, one connection;
// each at most 0.8 of the bare proxy's.
func BenchmarkFiguresLatency(b *testing.B) {
	direct, bare, door := stage(b, "/v1/chat/completions", benchChat, lean(b, fixedAnswer(benchAnswer)), nil)
	for b.Loop() {
		took := map[string][]time.Duration{}
		var clients []*client
		for _, t := range []target{direct, bare, door} {
			c := t.dial(b)
			defer c.c.Close()
			clients = append(clients, c)
			for range 500 {
				c.do(b)
			}
		}
		for range 1000 {
			for _, c := range clients {
				for range 20 {
					begin := time.Now()
					c.do(b)
					took[c.t.name] = append(took[c.t.name], time.Since(begin))
				}
			}
		}
		for _, q := range []float64{0.5, 0.99} {
			base := quantile(took["direct"], q)
			addedBare, addedDoor := quantile(took["bare"], q)-base, quantile(took["door"], q)-base
			name := fmt.Sprintf("p%g", q*100)
			b.ReportMetric(float64(addedDoor)/float64(addedBare), name+"_ratio")
			b.Logf("%s: direct %v, bare +%v, door +%v: ratio %.2f (must be at most 0.8)", name, base, addedBare, addedDoor, float64(addedDoor)/float64(addedBare))
		}
	}
}

// rate drives n connections for d, and returns answers of status 200 per second.
func (t target) rate(b *testing.B, n int, d time.Duration) float64 {
	var wg sync.WaitGroup
	counts := make([]int, n)
	clients := make([]*client, n)
	for i := range clients {
		clients[i] = t.dial(b)
		defer clients[i].c.Close()
		clients[i].do(b)
	}
	begin := time.Now()
	for i, c := range clients {
		wg.Go(func() {
			for time.Since(begin) < d {
				if c.do(b) == http.StatusOK {
					counts[i]++
				} else {
					b.Errorf("%s: an answer that is not 200", t.name)
					return
				}
			}
		})
	}
	wg.Wait()
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return float64(sum) / time.Since(begin).Seconds()
}

// BenchmarkFiguresRate: requests per second at 8 and 64 connections; at least 1.3 times the bare proxy's. With a
// small queue the only error is 503 queue_full.
func BenchmarkFiguresRate(b *testing.B) {
	backEnd := lean(b, fixedAnswer(benchAnswer))
	_, bare, door := stage(b, "/v1/chat/completions", benchChat, backEnd, nil)
	_, _, small := stage(b, "/v1/chat/completions", benchChat, backEnd, func(d *Deps) { d.Bounds.MaxInFlight, d.Bounds.QueueBound = 2, 4 })
	for b.Loop() {
		const rounds = 8
		for _, n := range []int{8, 64} {
			var sumBare, sumDoor float64
			for range rounds {
				sumBare += bare.rate(b, n, 300*time.Millisecond)
				sumDoor += door.rate(b, n, 300*time.Millisecond)
			}
			b.ReportMetric(sumDoor/sumBare, fmt.Sprintf("rate%d_ratio", n))
			b.Logf("%d connections: bare %.0f/s, door %.0f/s: ratio %.2f (must be at least 1.3)", n, sumBare/rounds, sumDoor/rounds, sumDoor/sumBare)
			served, full := crush(b, small.address, string(small.request), n, 500, func() {})
			b.Logf("%d connections, two at once and a queue of four: %d answers are 200, %d are 503 queue_full, none is another", n, served, full)
		}
	}
}
