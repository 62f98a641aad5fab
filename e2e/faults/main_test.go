// Package faults breaks the running program on purpose: actors panic, the runtime is killed, paused
// and corrupted, the daemon is killed and interrupted. The programs are built with the tag "faults";
// runtime and model are real.
//
// FAULTS_ROUNDS and FAULTS_KILLS ask for more repetitions than CI makes, for the figures.
package faults

import (
	"context"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"companion/adapters/door/controlsock"
	"companion/e2e/harness"
	"companion/messages"
)

func TestMain(m *testing.M) {
	harness.Tags = "faults"
	harness.Main(m)
}

// settings shorten the intervals for tests: a paused runtime is found after one beat plus the probe's three
// seconds.
const settings = `[health]
beat = "500ms"
recency = "6s"
[runtime]
drain_timeout = "8s"
start_timeout = "20s"
[front_door]
rate_per_minute = 100000
`

const (
	recency      = 6 * time.Second
	drainTimeout = 8 * time.Second
	startTimeout = 20 * time.Second
	// againWithin bounds a runtime's start on a machine that is busy with other tests.
	againWithin = time.Minute
)

// truths has a *harness.Truth for each companion.
var truths sync.Map

func repetitions(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	value := os.Getenv(variable)
	if value == "" {
		return otherwise
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q, want a number", variable, value)
	}
	return n
}

// probe reads the status over the control socket, which is cheaper than a command.
func probe(t *testing.T, c *harness.Companion) (messages.Status, bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	asked := time.Now()
	status, err := controlsock.Dial(c.RunTime() + "/control.sock").Status(ctx)
	checkFacts(t, status)
	truth, _ := truths.LoadOrStore(c, &harness.Truth{Dead: time.Second, Paused: recency + time.Second})
	if err := truth.(*harness.Truth).Check(status, asked); err != nil {
		t.Error(err)
	}
	return status, err == nil
}

// await polls until wanted holds for the status.
func await(t *testing.T, c *harness.Companion, what string, limit time.Duration, wanted func(messages.Status) bool) messages.Status {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		status, answered := probe(t, c)
		if answered && wanted(status) {
			return status
		}
		if time.Now().After(deadline) {
			t.Fatalf("got answered %[3]v, %+[4]v after %[2]v, want %[1]s", what, limit, answered, status)
		}
	}
}

func available(s messages.Status) bool   { return s.CompanionAvailable }
func unavailable(s messages.Status) bool { return !s.CompanionAvailable }

// checkFacts checks a status against A5: available only while every fact holds.
func checkFacts(t *testing.T, s messages.Status) {
	t.Helper()
	f := s.Facts
	all := f.Verified && f.Ready && f.Bound && f.Token && f.HealthRecent && f.LastHealth != nil
	if s.CompanionAvailable && (!all || s.Lifecycle != messages.StateReady || s.Reason != messages.ReasonOK) {
		t.Errorf("available, %s, %s, with the facts %+v, want ready, ok and all facts true", s.Lifecycle, s.Reason, f)
	}
}

// witness follows the status and checks every line against A5.
type witness struct {
	t *testing.T
	*harness.Watch
}

func follow(t *testing.T, c *harness.Companion) witness {
	t.Helper()
	return witness{t, c.Watch()}
}

func (w witness) await(what string, limit time.Duration, wanted func(messages.Status) bool) messages.Status {
	w.t.Helper()
	return w.Await(what, limit, func(s messages.Status) bool {
		checkFacts(w.t, s)
		return wanted(s)
	})
}

// ended waits for the end of a stream: a request that is never answered fails the test.
func ended(t *testing.T, s *harness.Stream, limit time.Duration) *harness.Stream {
	t.Helper()
	select {
	case <-s.Ended:
	case <-time.After(limit):
		t.Fatalf("got a stream without end, want one within %v", limit)
	}
	return s
}

// answers checks that the real runtime behind the front door answers.
func answers(t *testing.T, c *harness.Companion) {
	t.Helper()
	if reply := c.Door().Chat(t.Context(), 2); reply.Status != 200 || reply.Err != nil {
		t.Errorf("a question: got %d %s %v, want 200", reply.Status, reply.Code, reply.Err)
	}
}
