package frontdoor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// L6a, T16: large bodies are checked one after the other as far as their sizes demand it; small ones do not wait for them;
// a wait ends with the request, or after a bound.
func TestChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChecks(16 << 20)
		endLarge, err := c.begin(t.Context(), 15<<20)
		if err != nil {
			t.Fatal(err)
		}
		for range smallChecks {
			if _, err := c.begin(t.Context(), freeBody); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		if _, err := c.begin(t.Context(), 1); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != checkWithin {
			t.Errorf("one small body too many: got %v after %v, want the deadline after %v", err, time.Since(began), checkWithin)
		}
		gone, leave := context.WithCancel(t.Context())
		leave()
		if _, err := c.begin(gone, 2<<20); !errors.Is(err, context.Canceled) {
			t.Errorf("a client that left: got %v, want %v", err, context.Canceled)
		}
		second := make(chan error, 1)
		go func() {
			end, err := c.begin(t.Context(), 2<<20)
			if err == nil {
				end()
			}
			second <- err
		}()
		synctest.Wait()
		select {
		case err := <-second:
			t.Errorf("a second large body: got %v at once, want it to wait", err)
		default:
		}
		endLarge()
		if err := <-second; err != nil {
			t.Errorf("after the first has ended: got %v, want a turn", err)
		}
		end, err := c.begin(t.Context(), 17<<20) // a chunked body is one byte over the bound before it is refused
		if err != nil {
			t.Fatal(err)
		}
		end()
	})
}

// T7: a runtime that invents items does not fill the daemon's memory.
func TestItemsWithoutEnd(t *testing.T) {
	r := newResponseEvents("m", bounds{})
	out := make([]byte, 0, 64<<10)
	for i := range 10 * maxItems {
		id := fmt.Sprintf("%d-%s", i, bytes.Repeat([]byte("x"), 100+i%400))
		event := r.Event(out[:0], []byte(fmt.Sprintf("event: response.output_item.added\ndata: {\"x\":1,\"id\":%q}\n\n", id)))
		if !bytes.Contains(event, []byte(id)) {
			t.Fatalf("item %d: got %.100q, want the event itself", i, event)
		}
	}
	kept := 0
	for _, id := range r.items {
		kept += len(id)
	}
	if len(r.items) > maxItems || kept > maxItems*maxItemID {
		t.Errorf("got %d items of %d bytes kept, want at most %d of %d bytes each", len(r.items), kept, maxItems, maxItemID)
	}
}
