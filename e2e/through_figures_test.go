package e2e

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// throughBody is a greedy answer of 32 tokens. Its prompt is in the cache of both sides, which are one runtime.
const throughBody = `{"stream":true,"messages":[{"role":"user","content":"What are three good reasons to learn to cook at home?"}],"temperature":0,"max_tokens":32,"cache_prompt":true,"ignore_eos":true}`

// measure streams one answer. It returns the time to the first token, and the tokens per second after it.
func (s *feltServer) measure(body string) (first time.Duration, rate float64) {
	began := time.Now()
	response := s.post(body)
	defer response.Body.Close()
	lines, tokens := bufio.NewReader(response.Body), 0
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			s.b.Fatalf("the stream ended early: %v", err)
		}
		switch {
		case line == "data: [DONE]\n":
			return first, float64(tokens-1) / (time.Since(began) - first).Seconds()
		case strings.Contains(line, `"content":"`):
			if tokens++; tokens == 1 {
				first = time.Since(began)
			}
		}
	}
}

// BenchmarkFeltDoor compares the time to the first token and the tokens per second through the door with those on the socket
// of the same runtime, one request after another in turns: the median of the ratios of neighbors must be within 2 %. They are
// short, because other work on the machine changes both sides alike only while they are close. -benchtime 10x makes ten rounds
// of ten requests to each side, in either order.
func BenchmarkFeltDoor(b *testing.B) {
	c, door := feltStart(b, "")
	sockets, err := filepath.Glob(filepath.Join(c.RunTime(), "backend", "*", "*.sock"))
	if err != nil || len(sockets) != 1 {
		b.Fatalf("got the sockets %v, %v, want one", sockets, err)
	}
	bare := &feltServer{b, "http://bare/v1", "", &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", sockets[0])
	}}}, door.pid}
	sides := []struct {
		name   string
		server *feltServer
	}{{"bare", bare}, {"ours", door}}
	for _, s := range sides {
		s.server.measure(throughBody)
	}
	var table feltTable
	for b.Loop() {
		for pair := range 10 {
			var firsts, rates [2]float64
			for i := range sides {
				i = (i + pair) % 2
				first, rate := sides[i].server.measure(throughBody)
				firsts[i], rates[i] = float64(first.Microseconds())/1000, rate
				table.add("first token, ms "+sides[i].name, firsts[i])
				table.add("tokens/s "+sides[i].name, rate)
			}
			table.add("first token, neighbors", firsts[1]/firsts[0])
			table.add("tokens/s, neighbors", rates[1]/rates[0])
		}
	}
	table.print(b)
	b.ReportMetric(table.median("first token, neighbors"), "first_token_ratio")
	b.ReportMetric(table.median("tokens/s, neighbors"), "tokens/s_ratio")
}
