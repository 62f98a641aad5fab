package frontdoor

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// sharing is a runtime whose two slots share a context of 10,000 tokens. It counts four bytes of a request as one token,
// and notes what it gets.
type sharing struct {
	mu       sync.Mutex
	counts   int
	limits   []int
	active   int
	most     int
	release  chan struct{} // when not nil, answers wait for it
	refuse   bool          // to count
	breakOff bool          // while counting
}

func (s *sharing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/json")
	if strings.HasSuffix(r.URL.Path, "/input_tokens") || r.URL.Path == routeCountTokens {
		s.mu.Lock()
		s.counts++
		s.mu.Unlock()
		switch {
		case s.breakOff:
			panic(http.ErrAbortHandler)
		case s.refuse:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"error":{"message":"no such route"}}`)
		default:
			fmt.Fprintf(w, `{"input_tokens":%d}`, len(body)/4)
		}
		return
	}
	var request struct {
		Max    int `json:"max_tokens"`
		Output int `json:"max_output_tokens"`
	}
	_ = json.Unmarshal(body, &request)
	s.mu.Lock()
	s.limits = append(s.limits, max(request.Max, request.Output))
	s.active++
	s.most = max(s.most, s.active)
	s.mu.Unlock()
	if s.release != nil {
		<-s.release
	}
	s.mu.Lock()
	s.active--
	s.mu.Unlock()
	fmt.Fprint(w, chatAnswer)
}

// shared runs a front door before it. Each of two requests is guaranteed 4,000 of the 10,000 tokens.
func shared(t *testing.T, s *sharing) *rig {
	t.Helper()
	r := start(t, s, nil)
	snapshot := r.snapshot.Get()
	snapshot.Model.Context, snapshot.Model.Share = 10_000, 4000
	r.snapshot.Set(snapshot)
	return r
}

func question(bytes int, more string) string {
	return `{"messages":[{"role":"user","content":"` + strings.Repeat("x", bytes) + `"}]` + more + `}`
}

// L15: a short prompt needs no count, a longer one is counted by the runtime, and prompt and answer stay within the share.
// A longer prompt, and one that cannot be counted, has the whole context.
func TestShareLimitsTheAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		path, body   string
		refuse       bool
		counts       int
		least, limit int
	}{
		"short":                  {routeChat, question(10, ""), false, 0, 2500, 4000 - templateTokens},
		"short, own bound":       {routeChat, question(10, `,"max_tokens":7`), false, 0, 7, 7},
		"short, own high bound":  {routeChat, question(10, `,"max_tokens":99999`), false, 0, 2500, 4000 - templateTokens},
		"middle":                 {routeChat, question(8000, ""), false, 1, 1900, 2000},
		"middle, responses":      {routeResponses, `{"input":"` + strings.Repeat("x", 8000) + `"}`, false, 1, 1900, 2000},
		"middle, messages":       {routeMessages, question(8000, ""), false, 1, 1900, 2000},
		"middle, cannot count":   {routeChat, question(8000, ""), true, 1, 10_000, 10_000},
		"middle, not countable":  {routeCompletions, `{"prompt":"` + strings.Repeat("x", 8000) + `"}`, false, 0, 10_000, 10_000},
		"long":                   {routeChat, question(16_000, ""), false, 1, 10_000, 10_000},
		"long, own bound":        {routeChat, question(16_000, `,"max_tokens":50`), false, 1, 50, 50},
		"several answers, short": {routeChat, question(10, `,"n":2`), false, 0, 2500, 4000 - templateTokens},
	} {
		s := &sharing{refuse: c.refuse}
		r := shared(t, s)
		if a := r.one(r.request("POST", c.path, c.body)); a.status != 200 {
			t.Errorf("%s: got %d %s, want 200", name, a.status, a.body)
		}
		if s.counts != c.counts || len(s.limits) != 1 || s.limits[0] < c.least || s.limits[0] > c.limit {
			t.Errorf("%s: got %d counts and the bounds %v, want %d and one from %d to %d", name, s.counts, s.limits, c.counts, c.least, c.limit)
		}
		if got := r.drain(); got != 0 {
			t.Errorf("%s: got %d requests in flight afterwards, want 0", name, got)
		}
		r.stop()
	}
}

// L15: requests within their shares run side by side; one with a long prompt runs alone, and all are answered.
func TestLongPromptRunsAlone(t *testing.T) {
	for name, c := range map[string]struct {
		bytes, most int
	}{"short": {10, 2}, "long": {16_000, 1}} {
		s := &sharing{release: make(chan struct{})}
		r := shared(t, s)
		answers := make(chan answered, 3)
		for range 3 {
			go func() { answers <- r.one(r.request("POST", routeChat, question(c.bytes, ""))) }()
		}
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			s.mu.Lock()
			active := s.active
			s.mu.Unlock()
			if v := r.actor.View(); active == c.most && v.Queued == 3-c.most {
				break
			}
		}
		close(s.release)
		for range 3 {
			if a := <-answers; a.status != 200 {
				t.Errorf("%s: got %d %s, want 200", name, a.status, a.body)
			}
		}
		if s.most != c.most {
			t.Errorf("%s: got %d requests at once, want %d", name, s.most, c.most)
		}
		r.stop()
	}
}

// L15, R11: a runtime that ends while it counts is a failure of this request, and not a long prompt.
func TestCountBreaksOff(t *testing.T) {
	s := &sharing{breakOff: true}
	r := shared(t, s)
	if a := r.one(r.request("POST", routeChat, question(8000, ""))); a.status != 502 && a.status != 503 {
		t.Errorf("got %d %s, want a failure of the runtime", a.status, a.body)
	}
	if len(s.limits) != 0 {
		t.Errorf("got %d requests after the failed count, want none", len(s.limits))
	}
}

// L15: without sharing nothing is counted or lowered.
func TestNothingIsShared(t *testing.T) {
	s := &sharing{}
	r := start(t, s, nil)
	for _, share := range []int{0, 4096} {
		snapshot := r.snapshot.Get()
		snapshot.Model.Share = share
		r.snapshot.Set(snapshot)
		if a := r.one(r.request("POST", routeChat, question(8000, ""))); a.status != 200 {
			t.Errorf("share %d: got %d, want 200", share, a.status)
		}
	}
	if s.counts != 0 || len(s.limits) != 2 || s.limits[0] != 4096 || s.limits[1] != 4096 {
		t.Errorf("got %d counts and the bounds %v, want none and the context", s.counts, s.limits)
	}
}
