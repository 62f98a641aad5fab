package e2e

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"time"

	"companion/adapters/door/controlsock"
	"companion/e2e/harness"
)

// L8: a client that leaves in mid-stream ends the computation. The runtime has one slot, and the
// stream would keep it for thousands of tokens: whoever is answered next has got that slot.
func TestCancelFreesTheSlot(t *testing.T) {
	c := harness.Ready(t, "[runtime]\nmax_in_flight = 1\nqueue_bound = 1\n")
	door := c.Door()
	control := controlsock.Dial(c.RunTime() + "/control.sock")
	// The stream would take minutes. The bound is for a machine that is busy; the figure is in the log.
	const within = 20 * time.Second
	began := time.Now()
	one := func() {
		if reply := door.Chat(t.Context(), 1); reply.Status != http.StatusOK {
			t.Fatalf("one token is answered %d %s %v", reply.Status, reply.Code, reply.Err)
		}
	}
	one()
	alone := time.Since(began)
	idle := func() {
		for {
			status, err := control.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if status.FrontDoor.InFlight == 0 || t.Context().Err() != nil {
				return
			}
		}
	}
	for what, free := range map[string]func(){"inFlight is 0": idle, "the next token is there": one} {
		var took []time.Duration
		for range 5 {
			ctx, leave := context.WithCancel(t.Context())
			stream := door.Stream(ctx, 4000)
			if status, err := control.Status(t.Context()); err != nil || status.FrontDoor.InFlight != 1 || stream.Status != http.StatusOK {
				leave()
				t.Fatalf("no stream runs: %v, %v, %d in flight", stream, err, status.FrontDoor.InFlight)
			}
			cut := time.Now()
			leave()
			free()
			took = append(took, time.Since(cut))
			if <-stream.Ended; stream.Done {
				t.Fatalf("the stream came to its end: %v", stream)
			}
		}
		slices.Sort(took)
		t.Logf("from the cut until %s: median %v, longest %v (one token alone: %v)", what, took[2], took[4], alone)
		if took[4] > within {
			t.Errorf("from the cut until %s: %v", what, took)
		}
	}
	c.Stop()
}
