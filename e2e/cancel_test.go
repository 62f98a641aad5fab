package e2e

import (
	"context"
	"net/http"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"companion/adapters/door/controlsock"
	"companion/e2e/harness"
	"companion/messages"
)

// L8: a client that leaves in mid-stream ends the computation. The runtime has one slot, and the stream would
// keep it for thousands of tokens, so an answer to the next client proves that the slot is free.
func TestCancelFreesTheSlot(t *testing.T) {
	s := newSlot(t)
	// The stream would take minutes. The bound allows for a busy machine; BenchmarkCancel has the figure.
	const within = 20 * time.Second
	for what, free := range map[string]func(){"inFlight is 0": s.idle, "the next token is there": s.next} {
		for range 3 {
			if took := s.cancel(free); took > within {
				t.Errorf("from the cut until %s: took %v, want at most %v", what, took, within)
			}
		}
	}
	s.companion.Stop()
}

// BenchmarkCancel prints the time from a client's leaving in mid-stream until nothing is in flight, and until
// the next client has its first token from the real runtime's only slot: at most 500 ms. It also prints how
// long one token takes alone.
func BenchmarkCancel(b *testing.B) {
	s := newSlot(b)
	var alone, idle, next []time.Duration
	for b.Loop() {
		began := time.Now()
		s.next()
		alone = append(alone, time.Since(began))
		idle = append(idle, s.cancel(s.idle))
		next = append(next, s.cancel(s.next))
	}
	for name, times := range map[string][]time.Duration{"alone": alone, "idle": idle, "next-token": next} {
		slices.Sort(times)
		b.ReportMetric(harness.Median(times).Seconds()*1e3, name+"-p50-ms")
		b.ReportMetric(times[len(times)-1].Seconds()*1e3, name+"-max-ms")
	}
}

// slot is a companion whose runtime has one slot.
type slot struct {
	t         testing.TB
	companion *harness.Companion
	door      *harness.Door
	control   *controlsock.Client
}

func newSlot(t testing.TB) *slot {
	t.Helper()
	c := harness.Ready(t, "[runtime]\nmax_in_flight = 1\nqueue_bound = 1\n")
	s := &slot{t, c, c.Door(), controlsock.Dial(filepath.Join(c.RunTime(), "control.sock"))}
	s.next()
	return s
}

func (s *slot) status() messages.Status {
	s.t.Helper()
	status, err := s.control.Status(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return status
}

// idle waits until nothing is in flight.
func (s *slot) idle() {
	for s.status().FrontDoor.InFlight != 0 {
		time.Sleep(time.Millisecond)
	}
}

// next gets one token.
func (s *slot) next() {
	s.t.Helper()
	if reply := s.door.Chat(s.t.Context(), 1); reply.Status != http.StatusOK {
		s.t.Fatalf("one token: got %d %s %v, want 200", reply.Status, reply.Code, reply.Err)
	}
}

// cancel leaves a stream that has begun, and returns how long it takes until free returns.
func (s *slot) cancel(free func()) time.Duration {
	s.t.Helper()
	ctx, leave := context.WithCancel(s.t.Context())
	defer leave()
	stream := s.door.Stream(ctx, 4000)
	if n := s.status().FrontDoor.InFlight; n != 1 || stream.Status != http.StatusOK {
		leave()
		<-stream.Ended
		s.t.Fatalf("got stream %v, %d in flight, want one running stream", stream, n)
	}
	cut := time.Now()
	leave()
	free()
	took := time.Since(cut)
	if <-stream.Ended; stream.Done {
		s.t.Fatalf("the stream ended before the cut: got %v, want it running", stream)
	}
	return took
}
