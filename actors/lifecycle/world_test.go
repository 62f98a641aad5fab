package lifecycle

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"companion/actors/actorkit"
	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world holds the mailboxes of all other actors, so that a test can send and receive for them.
type world struct {
	inbox     chan messages.ToLifecycle
	process   chan messages.ToProcess
	provision chan messages.ToProvision
	frontDoor chan messages.ToFrontDoor
	health    chan messages.ToHealth
	custody   chan messages.LoopbackRequest
	manifest  chan messages.ManifestCommand
	snapshot  *actorkit.Watch[messages.Snapshot]
	logs      *observer.ObservedLogs
	actor     *Actor
	cancel    context.CancelFunc
	ended     chan error
}

const boxSize = 256

func newWorld() *world {
	w := &world{
		inbox:     make(chan messages.ToLifecycle, boxSize),
		process:   make(chan messages.ToProcess, boxSize),
		provision: make(chan messages.ToProvision, boxSize),
		frontDoor: make(chan messages.ToFrontDoor, boxSize),
		health:    make(chan messages.ToHealth, boxSize),
		custody:   make(chan messages.LoopbackRequest, boxSize),
		manifest:  make(chan messages.ManifestCommand, boxSize),
		snapshot:  actorkit.NewWatch(messages.Snapshot{State: messages.StateStopped, Wanted: true}),
	}
	core, logs := observer.New(zap.InfoLevel)
	w.logs = logs
	w.actor = New(Deps{
		Inbox: w.inbox, Process: w.process, Provision: w.provision, FrontDoor: w.frontDoor,
		Health: w.health, Custody: w.custody, Manifest: w.manifest, Snapshot: w.snapshot, Log: zap.New(core),
	})
	w.serve()
	return w
}

func (w *world) serve() {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel, w.ended = cancel, make(chan error, 1)
	go func() { w.ended <- w.actor.Serve(ctx) }()
	synctest.Wait()
}

func (w *world) close() {
	w.cancel()
	<-w.ended
}

// send delivers messages one by one and waits after each until the actor is idle.
func (w *world) send(ms ...messages.ToLifecycle) messages.Snapshot {
	for _, m := range ms {
		w.inbox <- m
		synctest.Wait()
	}
	return w.snapshot.Get()
}

// pass advances the time by d.
func (w *world) pass(d time.Duration) messages.Snapshot {
	time.Sleep(d)
	synctest.Wait()
	return w.snapshot.Get()
}

// taken drains a mailbox and returns its messages of type M.
func taken[M, B any](box chan B) []M {
	var ms []M
	for {
		select {
		case m := <-box:
			if wanted, ok := any(m).(M); ok {
				ms = append(ms, wanted)
			}
		default:
			return ms
		}
	}
}

func verified(version byte) messages.ArtifactsVerified {
	return messages.ArtifactsVerified{
		Model:   messages.VerifiedModel{Name: "m", SHA256: [32]byte{version}},
		Runtime: messages.VerifiedRuntime{Name: "r", Dir: "d"},
	}
}

// ready makes inference available with launch 1.
func (w *world) ready(t *testing.T) {
	t.Helper()
	w.send(messages.RuntimeAbsent{}, messages.DoorBound{BaseURL: "http://127.0.0.1:1/v1"}, messages.TokenStored{}, verified(1))
	w.up(t)
}

// up answers the newest Spawn up to a health success.
func (w *world) up(t *testing.T) messages.Launch {
	t.Helper()
	spawns := taken[messages.Spawn](w.process)
	if len(spawns) == 0 {
		t.Fatalf("got no Spawn in %+v, want one", w.snapshot.Get())
	}
	launch := spawns[len(spawns)-1].Launch
	got := w.send(messages.RuntimeStarted{Launch: launch, PID: 7},
		messages.BackEndUp{Launch: launch, BackEnd: messages.BackEnd{Network: "unix", Address: "s"}, Model: messages.Model{Name: "m"}},
		messages.HealthSucceeded{Launch: launch, At: time.Now()})
	if got.State != messages.StateReady || !got.Available {
		t.Fatalf("got %+v, want available", got)
	}
	return launch
}

func exited(launch messages.Launch, reason messages.Reason) messages.RuntimeExited {
	return messages.RuntimeExited{Launch: launch, Exit: messages.ExitReport{At: time.Now(), Code: -1, Signal: "killed", Reason: reason}}
}
