package fsm

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// R14: the two times together are the idle time, probes end first, and zero stays zero.
func TestSleepTimes(t *testing.T) {
	if probes, sleep := SleepTimes(30 * time.Minute); probes != 450*time.Second || sleep != 1350*time.Second {
		t.Errorf("got %v and %v, want 7m30s and 22m30s", probes, sleep)
	}
	rapid.Check(t, func(t *rapid.T) {
		idle := time.Duration(rapid.Int64Range(0, int64(24*time.Hour)).Draw(t, "idle"))
		if probes, sleep := SleepTimes(idle); probes+sleep != idle || probes > sleep || probes < 0 {
			t.Fatalf("of %v: got %v and %v, want a smaller and a larger part", idle, probes, sleep)
		}
	})
}
