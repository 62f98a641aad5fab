package harness

import (
	"fmt"
	"sync"
	"time"

	"companion/messages"
)

// Truth checks what a daemon reports about its runtime against the system (A5). Pass every status to Check as
// it arrives.
type Truth struct {
	// Dead and Paused bound how long status may report available while the runtime is dead or paused.
	Dead, Paused time.Duration

	mu    sync.Mutex
	pid   int
	state string    // a state in which it cannot answer; empty while it can
	since time.Time // when it was first seen in that state
}

// Check returns the errors in a status that was requested at that time.
func (h *Truth) Check(s messages.Status, asked time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	state, within := stateOf(s.Runtime.PID), h.Dead
	switch state {
	case "", "Z", "X":
		state = "dead"
	case "T", "t":
		state, within = "paused", h.Paused
	default:
		state = ""
	}
	if !s.CompanionAvailable || state == "" {
		h.state = ""
		return nil
	}
	if s.Runtime.PID != h.pid || state != h.state {
		h.pid, h.state, h.since = s.Runtime.PID, state, time.Now()
		return nil
	}
	if late := asked.Sub(h.since); late > within {
		return fmt.Errorf("available %v after its runtime, process %d, was seen %s", late, h.pid, state)
	}
	return nil
}
