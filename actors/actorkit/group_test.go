package actorkit

import "testing"

// A9: a panic in a background goroutine is delivered to the loop, and further panics do not block Wait.
func TestPanicReachesTheLoop(t *testing.T) {
	group := NewGroup()
	for range 3 {
		group.Go(func() { panic("fault") })
	}
	done := false
	group.Go(func() { done = true })
	group.Wait()
	if got := <-group.Panicked(); got != "fault" || !done {
		t.Fatalf("got panic value %v, other goroutine done %t; want fault, true", got, done)
	}
}
