package frontdoor

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"companion/messages"
)

// L11, J2: refusals of one reason are written at most ten times in any second, the others are counted exactly
// once, and one reason does not use up the lines of another.
func TestRefusalLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		l := refusalLog{log: zap.New(core)}
		var written []time.Time
		const each, every = 5000, 700 * time.Microsecond
		others := 0
		for i := range each {
			if l.allow(messages.ReasonMissingToken) {
				written = append(written, time.Now())
			}
			if i%1500 == 0 && l.allow(messages.ReasonHostNotAllowed) {
				others++
			}
			time.Sleep(every)
		}
		time.Sleep(refusalSpan)
		if others != 4 {
			t.Errorf("got %d lines of a rare reason beside the flood, want all 4", others)
		}
		for i := refusalLines; i < len(written); i++ {
			if span := written[i].Sub(written[i-refusalLines]); span < refusalSpan {
				t.Fatalf("got %d lines within %v, want at most %d in %v", refusalLines+1, span, refusalLines, refusalSpan)
			}
		}
		counted := 0
		for _, e := range logs.All() {
			fields := e.ContextMap()
			counted += int(fields["count"].(int64))
			if e.Message != "more requests refused" || fields["reason"] != "missing_token" || fields["within"] != refusalSpan {
				t.Errorf("got the line %q %v, want a count of missing_token within a second", e.Message, fields)
			}
		}
		if got := len(written) + counted; got != each {
			t.Errorf("got %d lines and counts, want one for each of %d refusals", got, each)
		}
		if n := logs.Len(); n == 0 || n > 4 {
			t.Errorf("got %d counts in 3.5 s, want one a second", n)
		}
	})
}

// A count that is due is written when the front door ends, and no timer outlives it (goleak).
func TestRefusalLogCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		l := refusalLog{log: zap.New(core)}
		for range refusalLines + 7 {
			l.allow(messages.ReasonInvalidToken)
		}
		l.close()
		l.allow(messages.ReasonInvalidToken)
		time.Sleep(2 * refusalSpan)
		if n := logs.Len(); n != 1 || logs.All()[0].ContextMap()["count"] != int64(7) {
			t.Errorf("got %v, want one count of 7", logs.All())
		}
	})
}

// L11, T16: a flood of requests without the token leaves a bounded number of lines, and the requests with the
// token are all in the log.
func TestFloodLeavesTheHistory(t *testing.T) {
	r := start(t, llama(t), nil)
	began := time.Now()
	var flood sync.WaitGroup
	for range 4 {
		flood.Go(func() {
			for i := range 300 {
				c, err := net.Dial("tcp", r.address)
				if err != nil {
					t.Error(err)
					return
				}
				host := r.address
				if i%2 == 0 {
					host = "evil.example"
				}
				fmt.Fprintf(c, "GET /v1/models HTTP/1.1\r\nHost: %s\r\n\r\n", host)
				answer := make([]byte, 64)
				_, _ = c.Read(answer)
				if !strings.Contains(string(answer), " 40") {
					t.Errorf("got %q, want a refusal", answer)
				}
				c.Close()
			}
		})
	}
	const served = 5
	for range served {
		if got := r.chat(); got.status != 200 {
			t.Errorf("beside the flood: got %d, want 200", got.status)
		}
	}
	flood.Wait()
	took := time.Since(began)
	r.stop()
	lines, ok, all := 0, 0, 0
	for _, e := range r.logs.All() {
		fields := e.ContextMap()
		switch {
		case e.Message == "request" && fields["reason"] == "ok":
			ok++
		case e.Message == "request":
			lines, all = lines+1, all+1
		case e.Message == "more requests refused":
			lines, all = lines+1, all+int(fields["count"].(int64))
		}
	}
	if ok != served {
		t.Errorf("got %d lines of served requests, want %d", ok, served)
	}
	if most := 2 * (refusalLines + 1) * (int(took/refusalSpan) + 2); lines > most || all != 1200 {
		t.Errorf("got %d lines for %d refusals in %v, want at most %d lines for 1200", lines, all, took, most)
	}
}
