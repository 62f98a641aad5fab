// Package soak runs the whole program under mixed load with a fault every few seconds, and detects what shows
// only over time: leaks, unanswered requests, wrong verdicts. SOAK sets the duration; the default is one
// minute, and three in CI. Package faults proves the faults one by one.
package soak

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"companion/e2e/harness"
	"companion/messages"
)

func TestMain(m *testing.M) {
	harness.Tags = "faults"
	harness.Main(m)
}

const settings = `[health]
beat = "500ms"
recency = "6s"
[front_door]
rate_per_minute = 100000
[log]
level = "warn"
`

const (
	// answerWithin bounds every request: time in the queue, a runtime's start and a long answer.
	answerWithin = 90 * time.Second
	// warmUp is the time before the first measurement, in which pools, threads and caches fill.
	warmUp = 15 * time.Second
)

func duration(t *testing.T) time.Duration {
	t.Helper()
	switch value := os.Getenv("SOAK"); {
	case value != "":
		d, err := time.ParseDuration(value)
		if err != nil {
			t.Fatalf("SOAK: %v", err)
		}
		return d
	case os.Getenv("CI") == "true":
		return 3 * time.Minute
	default:
		return time.Minute
	}
}

// soak is one run: the companion under load and the counts.
type soak struct {
	t        *testing.T
	c        *harness.Companion
	triggers string
	door     *harness.Door // the right token
	stranger *harness.Door // a wrong one
	truth    *harness.Truth

	mu     sync.Mutex
	counts map[string]map[string]int // by kind of request or fault, then by outcome
}

func (s *soak) count(kind, outcome string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.counts[kind] == nil {
		s.counts[kind] = map[string]int{}
	}
	s.counts[kind][outcome]++
}

// A8, A9, L6, L8, L9, T3, T10, T16: under load and faults every request gets an answer or a clean error, no
// right token is refused and no wrong one admitted, nothing reports available without the facts, nothing
// leaks, and the command line answers.
func TestSoak(t *testing.T) {
	s := &soak{t: t, counts: map[string]map[string]int{}, triggers: harness.TempDir(t),
		truth: &harness.Truth{Dead: 2 * time.Second, Paused: 8 * time.Second}}
	s.c = harness.RealHub(t).Companion(settings)
	s.c.Extra = []string{"COMPANION_FAULTS=" + s.triggers}
	daemon := s.c.Start()
	s.c.SignIn()
	s.c.Available()
	s.door = s.c.Door()
	s.door.Distinct = true
	s.stranger = harness.NewDoor(s.door.BaseURL, strings.Repeat("A", 43))

	s.run(warmUp)
	before := s.quiet(daemon.PID)
	s.run(duration(t))
	after := s.quiet(daemon.PID)
	restarts := 0
	status, _ := s.c.Status()
	for _, actor := range status.Actors {
		restarts += actor.Restarts
	}
	t.Logf("%-16s %d", "actor restarts", restarts)
	s.print(before, after)
	s.compare(before, after)
	if s.counts["chat"]["200"] == 0 || restarts == 0 || status.Runtime.LastExit == nil {
		t.Error("no question was answered, no actor failed or no runtime: this proves nothing")
	}
	if reply := s.door.Chat(t.Context(), 2); reply.Status != 200 {
		t.Errorf("at the end a question: got %d %s %v, want 200", reply.Status, reply.Code, reply.Err)
	}
	if r := s.c.Run("chat", "--max-tokens", "2", "Hello."); r.Code != 0 {
		t.Errorf("at the end chat: got exit %d, want 0: %s", r.Code, r.Stderr)
	}
	s.goroutines(daemon)
}

// run puts the companion under load and injects faults until d has passed.
func (s *soak) run(d time.Duration) {
	ctx, cancel := context.WithTimeout(s.t.Context(), d)
	defer cancel()
	var workers sync.WaitGroup
	for _, work := range []func(context.Context){
		s.chat, s.chat, s.stream, s.leave, s.structured, s.models, s.wrongToken, s.badBody, s.status, s.breakOne,
	} {
		workers.Go(func() {
			for ctx.Err() == nil && !s.t.Failed() {
				work(ctx)
			}
		})
	}
	workers.Wait()
}

// quiet waits for the end of the load and measures the idle daemon.
func (s *soak) quiet(pid int) figures {
	s.t.Helper()
	s.c.Must("start")
	s.c.Await("available", time.Minute, func(st messages.Status) bool {
		return st.CompanionAvailable && st.FrontDoor.InFlight == 0 && st.FrontDoor.Queued == 0
	})
	time.Sleep(2 * time.Second) // connections of the load close, the collector runs
	return measure(s.t, pid)
}

// compare checks the daemon's resources at the end against those after warming up.
func (s *soak) compare(before, after figures) {
	s.t.Helper()
	if after.descriptors > before.descriptors+5 {
		s.t.Errorf("descriptors grew from %d to %d, want at most 5 more", before.descriptors, after.descriptors)
	}
	// Go keeps threads that it once needed; their number depends on the load.
	if after.threads > before.threads+10 {
		s.t.Errorf("threads grew from %d to %d, want at most 10 more", before.threads, after.threads)
	}
	if after.resident > before.resident*3/2 {
		s.t.Errorf("resident memory grew from %d to %d MiB, want at most by half", before.resident>>20, after.resident>>20)
	}
}

func (s *soak) print(before, after figures) {
	s.t.Logf("%-16s %10s %10s", "", "warmed up", "at the end")
	s.t.Logf("%-16s %10d %10d", "descriptors", before.descriptors, after.descriptors)
	s.t.Logf("%-16s %10d %10d", "threads", before.threads, after.threads)
	s.t.Logf("%-16s %10d %10d", "resident MiB", before.resident>>20, after.resident>>20)
	for _, kind := range slices.Sorted(maps.Keys(s.counts)) {
		var row []string
		for _, outcome := range slices.Sorted(maps.Keys(s.counts[kind])) {
			row = append(row, fmt.Sprintf("%s: %d", outcome, s.counts[kind][outcome]))
		}
		s.t.Logf("%-16s %s", kind, strings.Join(row, ", "))
	}
}

// goroutines compares the number of goroutines after the run with a fresh daemon's: SIGQUIT ends both, and Go
// then prints every goroutine.
func (s *soak) goroutines(daemon *harness.Process) {
	s.t.Helper()
	soaked := dumped(s.t, daemon)
	fresh := s.c.Start()
	s.c.Available()
	time.Sleep(2 * time.Second)
	expected := dumped(s.t, fresh)
	s.t.Logf("%-16s %d, of a fresh daemon %d", "goroutines", soaked, expected)
	if expected == 0 || soaked > expected+10 {
		s.t.Errorf("got %d goroutines at the end, want at most 10 more than a fresh daemon's %d", soaked, expected)
	}
}

func dumped(t *testing.T, daemon *harness.Process) int {
	t.Helper()
	daemon.Signal(syscall.SIGQUIT)
	daemon.Wait(10 * time.Second)
	return strings.Count(daemon.Output(), "\ngoroutine ")
}
