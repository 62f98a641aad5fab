package e2e

import (
	"testing"
	"time"

	"companion/e2e/harness"
	"companion/messages"
)

// R14, A4, A5: an idle model gives most of its memory back, no probe wakes it, availability holds meanwhile, and the next
// request wakes it and is answered.
func TestSleep(t *testing.T) {
	c := harness.Ready(t, "[runtime]\nidle_unload = \"8s\"\n[health]\nbeat = \"500ms\"\nrecency = \"6s\"\nidle_probe = \"1s\"\n")
	door := c.Door()
	if reply := door.Chat(t.Context(), 4); reply.Status != 200 {
		t.Fatalf("got %d %q, want an answer", reply.Status, reply.Body)
	}
	awake, _ := c.Status()
	if awake.Runtime.Asleep || awake.Runtime.PID == 0 {
		t.Fatalf("after a request: got %+v, want an awake model", awake.Runtime)
	}
	before := harness.Memory(t, awake.Runtime.PID, "VmRSS")
	c.Await("asleep", time.Minute, func(s messages.Status) bool { return s.Runtime.Asleep })
	if after := harness.Memory(t, awake.Runtime.PID, "VmRSS"); after*2 > before {
		t.Errorf("resident memory asleep: got %.0f MiB, want at most half of the %.0f MiB before", after/(1<<20), before/(1<<20))
	}
	for end := time.Now().Add(12 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		status, _ := c.Status()
		if !status.CompanionAvailable || !status.Runtime.Asleep || status.Runtime.PID != awake.Runtime.PID {
			t.Fatalf("got available %v, asleep %v, process %d; want available and asleep in process %d",
				status.CompanionAvailable, status.Runtime.Asleep, status.Runtime.PID, awake.Runtime.PID)
		}
	}
	began := time.Now()
	if reply := door.Chat(t.Context(), 1); reply.Status != 200 {
		t.Fatalf("asleep: got %d %q, want an answer", reply.Status, reply.Body)
	}
	t.Logf("first token after sleep: %v", time.Since(began))
	c.Await("awake", 10*time.Second, func(s messages.Status) bool { return !s.Runtime.Asleep })
	if status, _ := c.Status(); status.Runtime.Restarts != 0 || status.Runtime.PID != awake.Runtime.PID {
		t.Errorf("afterwards: got %+v, want the same process", status.Runtime)
	}
	c.Stop()
}
