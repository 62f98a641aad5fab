package notes

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// counter is a lane that answers at once, or after a pause, and keeps nothing.
type counter struct {
	pause       time.Duration
	early, late atomic.Int64
	mu          sync.Mutex
	n           int
	calls       map[int]func(int)
}

// at sets what is called before the n-th answer.
func (c *counter) at(n int, f func(int)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil {
		c.calls = map[int]func(int){}
	}
	c.calls[n] = f
}

func (c *counter) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	_, _ = io.Copy(io.Discard, request.Body)
	c.mu.Lock()
	c.n++
	n, call := c.n, c.calls[c.n]
	c.mu.Unlock()
	if call != nil {
		call(n)
	}
	if c.pause > 0 {
		select {
		case <-time.After(c.pause):
		case <-request.Context().Done():
			return
		}
	}
	answerLikeAModel(w)
}

// newServer serves a lane and returns its base URL.
func newServer(t testing.TB, lane http.Handler) string {
	t.Helper()
	server := httptest.NewServer(lane)
	t.Cleanup(server.Close)
	return server.URL + "/v1"
}
