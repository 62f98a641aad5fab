package resources

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/fsm"
	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scale is a probe whose results the test sets. It counts the observations.
type scale struct {
	mu     sync.Mutex
	bytes  int64
	err    error
	hang   bool
	takes  time.Duration
	asked  int
	closed int
}

func (s *scale) put(bytes int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes, s.err = bytes, err
}

func (s *scale) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hang = true
}

func (s *scale) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *scale) Observe(ctx context.Context, pid int, now time.Time) (messages.Observation, error) {
	s.mu.Lock()
	s.asked++
	seen, err, hang, takes := messages.Observation{At: now, PID: pid, ResidentBytes: s.bytes}, s.err, s.hang, s.takes
	s.mu.Unlock()
	time.Sleep(takes)
	if hang {
		<-ctx.Done()
		return messages.Observation{}, ctx.Err()
	}
	return seen, err
}

func (s *scale) Close() { s.closed++ }

type bench struct {
	scale     *scale
	process   *actorkit.Watch[messages.ProcessView]
	snapshot  *actorkit.Watch[messages.Snapshot]
	lifecycle chan messages.ToLifecycle
	seen      *actorkit.Watch[messages.Observation]
}

// serve runs the actor in a synctest bubble around check.
func serve(t *testing.T, limit int64, check func(*bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{
			scale: &scale{}, process: actorkit.NewWatch(messages.ProcessView{}),
			snapshot: actorkit.NewWatch(messages.Snapshot{Launch: 1}), lifecycle: make(chan messages.ToLifecycle, 8),
			seen: actorkit.NewWatch(messages.Observation{PID: 99}),
		}
		actor := New(Deps{
			Process: b.process, Snapshot: b.snapshot, Lifecycle: b.lifecycle, Observation: b.seen,
			NewProbe: func() Prober { return b.scale },
			Limits:   messages.ResourceLimits{ResidentBytes: limit}, Log: zap.NewNop(),
		})
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error)
		go func() { served <- actor.Serve(ctx) }()
		if m := <-b.lifecycle; m != (messages.ActorStarted{Actor: messages.ActorResources}) {
			t.Errorf("first message: got %+v, want ActorStarted of resources", m)
		}
		check(b)
		cancel()
		if err := <-served; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: got %v, want %v", err, context.Canceled)
		}
		if left := b.seen.Get(); left != (messages.Observation{}) {
			t.Errorf("got the observation %+v after Serve, want an empty one", left)
		}
		if b.scale.closed != 1 {
			t.Errorf("got a probe closed %d times, want once", b.scale.closed)
		}
	})
}

func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// P1, P2: nothing is observed while no runtime runs; while one runs, the published observation is never older
// than half a second; afterwards it is cleared.
func TestObservesWhileARuntimeRuns(t *testing.T) {
	serve(t, 1<<30, func(b *bench) {
		wait(time.Hour)
		if b.scale.count() != 0 || b.seen.Get() != (messages.Observation{}) {
			t.Errorf("got %d observations while idle, last %+v, want none", b.scale.count(), b.seen.Get())
		}
		b.scale.put(5, nil)
		b.process.Set(messages.ProcessView{PID: 7})
		synctest.Wait()
		for range 50 {
			if seen := b.seen.Get(); seen.PID != 7 || seen.ResidentBytes != 5 || time.Since(seen.At) > fsm.Reuse {
				t.Fatalf("got %+v, want a recent observation of process 7", seen)
			}
			wait(70 * time.Millisecond)
		}
		b.process.Set(messages.ProcessView{})
		synctest.Wait()
		asked := b.scale.count()
		wait(time.Hour)
		if b.scale.count() != asked || b.seen.Get() != (messages.Observation{}) {
			t.Errorf("after the exit: got %+v, want an empty observation", b.seen.Get())
		}
	})
}

// P2: a slow probe starts again immediately, so that its observations are rarely too old to be used.
func TestSlowProbe(t *testing.T) {
	serve(t, 1<<30, func(b *bench) {
		b.scale.takes = 240 * time.Millisecond
		b.process.Set(messages.ProcessView{PID: 7})
		wait(b.scale.takes)
		for range 100 {
			if age := time.Since(b.seen.Get().At); age > fsm.Reuse || b.seen.Get().Failed {
				t.Fatalf("got an observation %v old: %+v, want a usable one", age, b.seen.Get())
			}
			wait(20 * time.Millisecond)
		}
	})
}

// P2, P3: without limits no request depends on an observation, so it is made rarely; after a failed one, which
// denies requests, the next follows as soon as with limits.
func TestIdleBeat(t *testing.T) {
	serve(t, 0, func(b *bench) {
		b.scale.put(5, nil)
		b.process.Set(messages.ProcessView{PID: 7})
		wait(10*IdleBeat - 1)
		if asked := b.scale.count(); asked != 10 {
			t.Errorf("got %d observations in %v, want 10", asked, 10*IdleBeat)
		}
		b.scale.put(5, errors.New("planted"))
		wait(IdleBeat)
		b.scale.put(5, nil)
		wait(Beat)
		if seen := b.seen.Get(); seen.Failed {
			t.Errorf("got %+v, want a successful observation", seen)
		}
	})
}

// P3: a probe that fails or hangs is published as failed, and recovers.
func TestFailedProbe(t *testing.T) {
	serve(t, 1<<30, func(b *bench) {
		b.scale.put(5, errors.New("planted"))
		b.process.Set(messages.ProcessView{PID: 7})
		synctest.Wait()
		if seen := b.seen.Get(); !seen.Failed || seen.PID != 7 {
			t.Errorf("got %+v, want a failed observation of process 7", seen)
		}
		b.scale.put(5, nil)
		wait(Beat)
		if seen := b.seen.Get(); seen.Failed {
			t.Errorf("got %+v, want a successful observation", seen)
		}
		b.scale.hangUp()
		wait(Beat + patience)
		if seen := b.seen.Get(); !seen.Failed {
			t.Errorf("got %+v, want a failed observation", seen)
		}
	})
}

// A9, P3: a probe that hangs and ignores its context blocks neither the actor nor its end. A late result is dropped.
func TestStuckProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		stuck := &deadProbe{release: release}
		seen := actorkit.NewWatch(messages.Observation{})
		process := actorkit.NewWatch(messages.ProcessView{PID: 7})
		actor := New(Deps{
			Process: process, Snapshot: actorkit.NewWatch(messages.Snapshot{}), Lifecycle: make(chan messages.ToLifecycle, 1),
			Observation: seen, NewProbe: func() Prober { return stuck }, Log: zap.NewNop(),
		})
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- actor.Serve(ctx) }()
		wait(time.Minute)
		if got := seen.Get(); !got.Failed || time.Since(got.At) > fsm.Reuse || stuck.asked != 1 {
			t.Errorf("got %+v after %d calls, want a failed observation after 1", got, stuck.asked)
		}
		process.Set(messages.ProcessView{})
		synctest.Wait()
		if got := seen.Get(); got != (messages.Observation{}) {
			t.Errorf("after the exit: got %+v, want an empty observation", got)
		}
		cancel()
		if err := <-served; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: got %v, want %v", err, context.Canceled)
		}
		close(release)
	})
}

type deadProbe struct {
	release chan struct{}
	asked   int
}

func (d *deadProbe) Observe(_ context.Context, pid int, now time.Time) (messages.Observation, error) {
	d.asked++
	<-d.release
	return messages.Observation{At: now, PID: pid, ResidentBytes: 1}, nil
}

func (d *deadProbe) Close() {}

// A9: a probe that panics, at once or after its timeout, ends only the actor, which the supervisor restarts.
func TestPanickingProbe(t *testing.T) {
	for name, late := range map[string]bool{"at once": false, "late": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bad := &badProbe{}
				if late {
					bad.after = 2 * patience
				}
				actor := New(Deps{
					Process: actorkit.NewWatch(messages.ProcessView{PID: 7}), Snapshot: actorkit.NewWatch(messages.Snapshot{}),
					Lifecycle: make(chan messages.ToLifecycle, 1), Observation: actorkit.NewWatch(messages.Observation{}),
					NewProbe: func() Prober { return bad }, Log: zap.NewNop(),
				})
				defer func() {
					if p := recover(); p != "planted" || !bad.closed {
						t.Errorf("Serve: got the panic %v and probe closed %v, want planted and true", p, bad.closed)
					}
				}()
				_ = actor.Serve(t.Context())
			})
		})
	}
}

type badProbe struct {
	after  time.Duration
	closed bool
}

func (b *badProbe) Observe(context.Context, int, time.Time) (messages.Observation, error) {
	time.Sleep(b.after)
	panic("planted")
}

func (b *badProbe) Close() { b.closed = true }

// P4: memory that stays over its limit for long enough is reported, repeatedly while that lasts. A shorter excess is
// not reported, and a limit of zero means none.
func TestSustainedExcess(t *testing.T) {
	type step struct {
		bytes  int64
		err    error
		lasts  time.Duration
		launch messages.Launch
	}
	failing := errors.New("planted")
	tests := map[string]struct {
		limit int64
		steps []step
		want  []messages.Launch
	}{
		"at the limit":        {100, []step{{100, nil, time.Minute, 1}}, nil},
		"over for long":       {100, []step{{101, nil, 2*DefaultSustained + Beat, 1}}, []messages.Launch{1, 1}},
		"over for short":      {100, []step{{101, nil, DefaultSustained - Beat, 1}, {99, nil, Beat, 1}, {101, nil, DefaultSustained - Beat, 1}}, nil},
		"next launch":         {100, []step{{101, nil, DefaultSustained + Beat, 1}, {101, nil, DefaultSustained + Beat, 2}}, []messages.Launch{1, 2}},
		"failures in between": {100, []step{{101, nil, 5 * time.Second, 1}, {0, failing, time.Second, 1}, {101, nil, 6 * time.Second, 1}}, []messages.Launch{1}},
		"no limit":            {0, []step{{1 << 60, nil, time.Minute, 1}}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			serve(t, test.limit, func(b *bench) {
				b.process.Set(messages.ProcessView{PID: 7})
				for _, s := range test.steps {
					b.scale.put(s.bytes, s.err)
					b.snapshot.Set(messages.Snapshot{Launch: s.launch})
					wait(s.lasts)
				}
				for _, launch := range test.want {
					select {
					case m := <-b.lifecycle:
						if m != (messages.MemoryExceeded{Launch: launch}) {
							t.Errorf("got %+v, want MemoryExceeded of the launch", m)
						}
					default:
						t.Errorf("got no message, want MemoryExceeded of launch %d", launch)
					}
				}
				if len(b.lifecycle) > 0 {
					t.Errorf("got also %+v, want no more messages", <-b.lifecycle)
				}
			})
		})
	}
}

// P1, P2: the real probe observes a real process.
func TestRealProbe(t *testing.T) {
	seen := actorkit.NewWatch(messages.Observation{})
	lifecycle := make(chan messages.ToLifecycle, 1)
	actor := New(Deps{
		Process: actorkit.NewWatch(messages.ProcessView{PID: os.Getpid()}), Snapshot: actorkit.NewWatch(messages.Snapshot{}),
		Lifecycle: lifecycle, Observation: seen, Log: zap.NewNop(),
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	served := make(chan error)
	go func() { served <- actor.Serve(ctx) }()
	var before time.Time
	for fresh := 0; fresh < 3; {
		observation, changed := seen.Next()
		if observation.ResidentBytes > 0 && !observation.Failed {
			// P2: each beat has a new observation.
			if observation.At.Equal(before) {
				t.Fatalf("got the observation of %v again, want a new one", before)
			}
			before = observation.At
			fresh++
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatal("got no observation, want one of a real process")
		}
	}
	cancel()
	if err := <-served; !errors.Is(err, context.Canceled) {
		t.Errorf("Serve: got %v, want %v", err, context.Canceled)
	}
	if actor.String() != "runtime/resources" {
		t.Errorf("got %q, want runtime/resources", actor)
	}
}
