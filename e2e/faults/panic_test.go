package faults

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"companion/adapters/authority/keychain"
	"companion/adapters/door/loopback"
	"companion/e2e/harness"
	"companion/messages"
)

// actors are all eleven; dependent are those that a request in flight needs.
var (
	actors = []messages.Actor{
		messages.ActorLifecycle, messages.ActorJournal,
		messages.ActorCustody, messages.ActorSession, messages.ActorManifest,
		messages.ActorFrontDoor, messages.ActorHealth, messages.ActorControl,
		messages.ActorProvision, messages.ActorProcess, messages.ActorResources,
	}
	dependent = []messages.Actor{messages.ActorFrontDoor, messages.ActorProcess}
	// speaking are the actors that log in the middle of the work with which a new one begins, when it has
	// read messages but not yet passed all of them on.
	speaking = []messages.Actor{
		messages.ActorCustody, messages.ActorSession, messages.ActorManifest, messages.ActorFrontDoor, messages.ActorProvision,
	}
)

// A9, T10: a panic in each actor under load is contained: nothing reports available without the facts,
// everything recovers by itself, the restart is counted, and a request that does not depend on the actor
// finishes.
func TestPanics(t *testing.T) {
	t.Parallel()
	triggers := harness.TempDir(t)
	c := harness.RealHub(t).Companion(settings)
	c.Extra = []string{"COMPANION_FAULTS=" + triggers}
	daemon := c.Start()
	c.SignIn()
	c.Available()
	stop := load(t, c)
	took := map[messages.Actor][]time.Duration{}
	for round := range repetitions(t, "FAULTS_ROUNDS", 1) {
		for _, actor := range actors {
			took[actor] = append(took[actor], panicked(t, c, triggers, actor, round == 0))
			if t.Failed() {
				t.Fatalf("after a panic of %s the daemon does not recover, want it available", actor)
			}
		}
		for _, actor := range []messages.Actor{messages.ActorLifecycle, messages.ActorProcess, messages.ActorHealth} {
			signal := syscall.SIGKILL
			if actor == messages.ActorHealth {
				signal = syscall.SIGSTOP // of an end it would hear from others
			}
			if halfTold(t, c, triggers, actor, signal); t.Failed() {
				t.Fatalf("after a panic of %s in the middle of its work the daemon does not recover, want it available", actor)
			}
		}
		for _, actor := range speaking {
			if halfStarted(t, c, triggers, actor); t.Failed() {
				t.Fatalf("after a panic of %s in the middle of its start the daemon does not recover, want it available", actor)
			}
		}
	}
	t.Logf("requests beside the panics: %v", stop())
	for _, actor := range actors {
		t.Logf("%-18s %d panics, back to normal after %v at most", actor, len(took[actor]), slices.Max(took[actor]).Round(time.Millisecond))
	}
	if !daemon.Running() {
		t.Error("the daemon ended, want it running")
	}
	answers(t, c)
	pausedAndAdopted(t, c, triggers)
	c.Stop()
}

// A5, A9, T10: a runtime that is paused when the lifecycle actor dies is adopted by the next one, and is
// ended and replaced as without the restart: the open stream ends with an error event, long before a start
// deadline.
func pausedAndAdopted(t *testing.T, c *harness.Companion, triggers string) {
	before := forgive(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream := c.Door().Stream(ctx, 1500)
	if stream.Status != 200 {
		t.Fatalf("got stream %v, want 200", stream)
	}
	hit := time.Now()
	if err := syscall.Kill(before.Runtime.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	trigger(t, triggers, messages.ActorLifecycle)
	ended(t, stream, startTimeout)
	took := time.Since(hit)
	t.Logf("paused and adopted: the stream ended after %v: %v", took.Round(time.Millisecond), stream)
	if !stream.Failed || stream.Done {
		t.Errorf("got stream %v, want a final error event", stream)
	}
	// 9.3 s on an idle machine.
	if took > startTimeout*3/4 {
		t.Errorf("the stream ended after %v, want at most %v", took, startTimeout*3/4)
	}
	after := await(t, c, "available again", againWithin, available)
	if after.Runtime.PID == before.Runtime.PID || restarts(after, messages.ActorLifecycle) != restarts(before, messages.ActorLifecycle)+1 {
		t.Errorf("got %+v afterwards, %+v before, want another runtime and one restart of lifecycle", after.Runtime, before.Runtime)
	}
}

// halfTold makes the actor panic while it handles a runtime that was killed or paused, after one of its two
// messages: A9 must hold there as it does between two pieces of work.
func halfTold(t *testing.T, c *harness.Companion, triggers string, actor messages.Actor, signal syscall.Signal) {
	t.Helper()
	before := forgive(t, c)
	began := time.Now()
	trigger(t, triggers, actor+".mid-work")
	if err := syscall.Kill(before.Runtime.PID, signal); err != nil {
		t.Fatal(err)
	}
	await(t, c, "restarted", againWithin, func(s messages.Status) bool {
		return restarts(s, actor) == restarts(before, actor)+1
	})
	after := await(t, c, "available again", againWithin, func(s messages.Status) bool {
		if s.CompanionAvailable && s.Runtime.PID == before.Runtime.PID {
			t.Errorf("available with a runtime that is gone")
		}
		return s.CompanionAvailable
	})
	t.Logf("%-18s panicked in the middle of its work, back to normal after %v", actor, time.Since(began).Round(time.Millisecond))
	for _, other := range actors {
		if other != actor && restarts(after, other) != restarts(before, other) {
			t.Errorf("the panic of %s restarted %s too, want only itself", actor, other)
		}
	}
}

// halfStarted makes the actor panic, and its successor once more, in the middle of its first work: the third
// one must recover, together with the runtime and the requests in it.
func halfStarted(t *testing.T, c *harness.Companion, triggers string, actor messages.Actor) {
	t.Helper()
	before := forgive(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream := c.Door().Stream(ctx, 24)
	began := time.Now()
	trigger(t, triggers, actor+".mid-work")
	trigger(t, triggers, actor)
	await(t, c, "restarted twice", againWithin, func(s messages.Status) bool {
		return restarts(s, actor) == restarts(before, actor)+2
	})
	after := await(t, c, "available again", againWithin, available)
	t.Logf("%-18s panicked in the middle of its start, back to normal after %v", actor, time.Since(began).Round(time.Millisecond))
	for _, other := range actors {
		if other != actor && restarts(after, other) != restarts(before, other) {
			t.Errorf("the panics of %s restarted %s too, want only itself", actor, other)
		}
	}
	if after.Runtime.PID != before.Runtime.PID {
		t.Errorf("the panics of %s replaced the runtime, want the same process", actor)
	}
	ended(t, stream, time.Minute)
	if !stream.Whole() && (!stream.Failed || !slices.Contains(dependent, actor)) {
		t.Errorf("the panics of %s: got stream %v, want it whole, or failed for an actor that it depends on", actor, stream)
	}
}

// trigger makes the actor panic once.
func trigger(t *testing.T, triggers string, actor messages.Actor) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(triggers, strings.ReplaceAll(string(actor), "/", "-")), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// panicked makes the actor panic once, and returns the time until the state was as before.
func panicked(t *testing.T, c *harness.Companion, triggers string, actor messages.Actor, streaming bool) time.Duration {
	t.Helper()
	before := await(t, c, "available", againWithin, available)
	var stream *harness.Stream
	if streaming {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		stream = c.Door().Stream(ctx, 24)
	}
	began := time.Now()
	trigger(t, triggers, actor)
	await(t, c, "restarted", againWithin, func(s messages.Status) bool {
		return restarts(s, actor) == restarts(before, actor)+1
	})
	after := await(t, c, "available again", againWithin, available)
	took := time.Since(began)
	for _, other := range actors {
		if other != actor && restarts(after, other) != restarts(before, other) {
			t.Errorf("the panic of %s restarted %s too, want only itself", actor, other)
		}
	}
	switch replaced := after.Runtime.PID != before.Runtime.PID; {
	case actor == messages.ActorProcess && (!replaced || harness.Alive(before.Runtime.PID)):
		t.Errorf("available with the runtime of a process actor that died")
	case actor != messages.ActorProcess && replaced:
		t.Errorf("the panic of %s replaced the runtime, want the same process", actor)
	}
	if stream != nil {
		ended(t, stream, time.Minute)
		t.Logf("%-18s open stream: %v", actor, stream)
		if !stream.Whole() && !slices.Contains(dependent, actor) {
			t.Errorf("the panic of %s: got stream %v, want it whole", actor, stream)
		}
		if !stream.Whole() && !stream.Failed {
			t.Errorf("the panic of %s: got stream %v, want it whole or with a final error event", actor, stream)
		}
	}
	return took
}

func restarts(s messages.Status, actor messages.Actor) int {
	for _, row := range s.Actors {
		if row.Name == actor {
			return row.Restarts
		}
	}
	return -1
}

// load sends small requests one after another until the returned function is called, which reports how they
// ended. An answer that no fault explains fails the test.
func load(t *testing.T, c *harness.Companion) (stop func() map[string]int) {
	t.Helper()
	token, found := c.Secret(keychain.LoopbackToken)
	if !found {
		t.Fatal("there is no loopback token")
	}
	ctx, cancel := context.WithCancel(t.Context())
	counts := map[string]int{}
	var running sync.WaitGroup
	running.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			endpoint, err := loopback.ReadEndpoint(filepath.Join(c.RunTime(), "endpoint.json"))
			if err != nil { // while the front door restarts
				time.Sleep(10 * time.Millisecond)
				continue
			}
			within, done := context.WithTimeout(ctx, time.Minute)
			// Each request has a text of its own: one that was alone in a runtime that ends is refused from then on (R11).
			reply := harness.NewDoor(endpoint.BaseURL, token).Do(within, http.MethodPost, "/chat/completions",
				fmt.Sprintf(`{"max_tokens":2,"messages":[{"role":"user","content":"Count from %d."}]}`, n))
			unanswered := within.Err() != nil && ctx.Err() == nil
			done()
			switch {
			case ctx.Err() != nil:
			case unanswered:
				t.Error("a request was not answered, want an answer within a minute")
			case reply.Err != nil:
				counts["connection refused or closed"]++
			case reply.Status == 200, reply.Status == 502, reply.Status == 503:
				counts[fmt.Sprint(reply.Status, " ", reply.Code)]++
			default:
				t.Errorf("a good request: got %d %s, want 200", reply.Status, reply.Code)
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
	return func() map[string]int {
		cancel()
		running.Wait()
		return maps.Clone(counts)
	}
}
