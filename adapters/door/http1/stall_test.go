package http1

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// L9: each flush must be taken within WriteStall. Reading a few bytes at a time does not extend that, and a slow reader
// that takes the events as they come is never disconnected.
func TestDribblingReader(t *testing.T) {
	stall := limits
	stall.WriteStall = time.Second
	for name, c := range map[string]struct {
		buffer int           // socket buffer of the kernel on both sides, in bytes
		event  int           // bytes
		every  time.Duration // interval between events
		read   int           // bytes per read
		pause  time.Duration // between reads
		cutOff bool
	}{
		"dribbles":             {1, 8000, 0, 4, 5 * time.Millisecond, true},
		"slow but steady":      {1, 100, 10 * time.Millisecond, 200, 15 * time.Millisecond, false},
		"slower than we write": {64 << 10, 8000, 0, 8000, 5 * time.Millisecond, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			longest, failed := time.Duration(0), make(chan error, 1)
			dial := listening(t, stall, func(conn *net.TCPConn) { _ = conn.SetWriteBuffer(c.buffer) }, func(w http.ResponseWriter, r *http.Request) {
				var err error
				for begin := time.Now(); err == nil && (c.cutOff || time.Since(begin) < 2*stall.WriteStall); time.Sleep(c.every) {
					flush := time.Now()
					if _, err = io.WriteString(w, strings.Repeat("x", c.event)); err == nil {
						err = http.NewResponseController(w).Flush()
					}
					longest = max(longest, time.Since(flush))
				}
				failed <- err
			})
			client := dial()
			_ = client.SetReadBuffer(c.buffer)
			_, _ = io.WriteString(client, good)
			go func() {
				for p := make([]byte, c.read); ; time.Sleep(c.pause) {
					if _, err := client.Read(p); err != nil {
						return
					}
				}
			}()
			if err := <-failed; (err != nil) != c.cutOff {
				t.Errorf("got %v after a flush of %v, want cut off: %v", err, longest, c.cutOff)
			}
			if longest > stall.WriteStall+500*time.Millisecond {
				t.Errorf("got a flush of %v, want at most %v", longest, stall.WriteStall+500*time.Millisecond)
			}
			t.Logf("the longest flush took %v", longest)
			client.Close()
		})
	}
}
