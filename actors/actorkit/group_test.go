package actorkit

import "testing"

// A9: a panic beside the loop reaches the loop, and only there ends anything; more of them than the
// loop has taken hold nobody up.
func TestPanicReachesTheLoop(t *testing.T) {
	group := NewGroup()
	for range 3 {
		group.Go(func() { panic("fault") })
	}
	done := false
	group.Go(func() { done = true })
	group.Wait()
	if got := <-group.Panicked(); got != "fault" || !done {
		t.Fatalf("the loop heard %v, other work done: %v", got, done)
	}
}
