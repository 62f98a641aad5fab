package control

import (
	"context"
	"errors"
	"path/filepath"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/adapters/door/controlsock"
	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// boxes are the mailboxes of the actors around control.
type boxes struct {
	lifecycle chan messages.ToLifecycle
	session   chan messages.SessionCommand
	manifest  chan messages.ManifestCommand
	frontDoor chan messages.ToFrontDoor
	snapshot  *actorkit.Watch[messages.Snapshot]
}

func run(t *testing.T) (*boxes, *controlsock.Client) {
	t.Helper()
	snapshot, views := full()
	b := &boxes{make(chan messages.ToLifecycle, 4), make(chan messages.SessionCommand, 4),
		make(chan messages.ManifestCommand, 4), make(chan messages.ToFrontDoor, 4), actorkit.NewWatch(snapshot)}
	path := filepath.Join(t.TempDir(), "run", "control.sock")
	actor := New(Deps{Lifecycle: b.lifecycle, Session: b.session, Manifest: b.manifest, FrontDoor: b.frontDoor,
		Snapshot: b.snapshot, Views: views, SocketPath: path, Version: "1", Recency: time.Minute, Log: zap.NewNop()})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- actor.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: got %v, want context.Canceled", err)
		}
	})
	// A9: the first message of each incarnation.
	if first := <-b.lifecycle; first != (messages.ActorStarted{Actor: messages.ActorControl}) {
		t.Fatalf("first message: got %#v, want ActorStarted of control", first)
	}
	client := controlsock.Dial(path)
	for { // the socket is opened right after the first message
		if _, err := client.Status(t.Context()); !errors.Is(err, controlsock.ErrNotRunning) {
			return b, client
		}
	}
}

// X2: each command reaches the actor that owns the state, and the caller gets its answer.
func TestCommandsReachTheirOwners(t *testing.T) {
	b, client := run(t)
	ctx := t.Context()
	const answer = messages.ReasonCrashLoop
	for name, test := range map[string]struct {
		do    func() (messages.Reason, error)
		owner func() bool // takes and answers the one message it expects
	}{
		"start": {func() (messages.Reason, error) { return client.Start(ctx) }, func() bool {
			m, ok := (<-b.lifecycle).(messages.StartRequested)
			m.Reply <- answer
			return ok
		}},
		"stop": {func() (messages.Reason, error) { return client.Stop(ctx) }, func() bool {
			m, ok := (<-b.lifecycle).(messages.StopRequested)
			m.Reply <- answer
			return ok
		}},
		"restart": {func() (messages.Reason, error) { return client.Restart(ctx) }, func() bool {
			m, ok := (<-b.lifecycle).(messages.RestartRequested)
			m.Reply <- answer
			return ok
		}},
		"reload tokens": {func() (messages.Reason, error) { return client.ReloadTokens(ctx) }, func() bool {
			m, ok := (<-b.frontDoor).(messages.ReloadApplicationTokens)
			m.Reply <- answer
			return ok
		}},
		"logout": {func() (messages.Reason, error) { r, err := client.Logout(ctx); return r.Hub, err }, func() bool {
			m, ok := (<-b.session).(messages.Logout)
			m.Reply <- messages.LogoutResult{Reason: messages.ReasonOK, Hub: answer}
			return ok
		}},
		"whoami": {func() (messages.Reason, error) { r, err := client.WhoAmI(ctx); return r.Reason, err }, func() bool {
			m, ok := (<-b.session).(messages.WhoAmI)
			m.Reply <- messages.WhoAmIResult{Reason: answer}
			return ok
		}},
		"pull": {func() (messages.Reason, error) { return client.Pull(ctx, "gemma") }, func() bool {
			m, ok := (<-b.manifest).(messages.Pull)
			m.Reply <- answer
			return ok && m.Name == "gemma"
		}},
		"prune": {func() (messages.Reason, error) { r, err := client.Prune(ctx, true); return r.Reason, err }, func() bool {
			m, ok := (<-b.manifest).(messages.PruneUnused)
			m.Reply <- messages.PruneResult{Reason: answer}
			return ok && m.DryRun
		}},
		"models": {func() (messages.Reason, error) { r, err := client.Models(ctx); return r.Reason, err }, func() bool {
			m, ok := (<-b.manifest).(messages.ListModels)
			m.Reply <- messages.ModelList{Reason: answer}
			return ok
		}},
	} {
		t.Run(name, func(t *testing.T) {
			asked := make(chan bool, 1)
			go func() { asked <- test.owner() }()
			if reason, err := test.do(); reason != answer || err != nil {
				t.Errorf("got %q, %v, want %q, nil", reason, err, answer)
			}
			if !<-asked {
				t.Error("got another message at the owner, want the one of this command")
			}
		})
	}
}

func TestLoginReachesTheSession(t *testing.T) {
	b, client := run(t)
	want := messages.LoginResult{Reason: messages.ReasonOK, User: messages.User{Name: "Ada"}}
	go func() {
		m := (<-b.session).(messages.Login)
		if !m.Device {
			t.Error("got a Login without device authorization, want one with it")
		}
		m.Page <- messages.LoginPage{URL: "http://127.0.0.1:1/once"}
		m.Done <- want
	}()
	var url string
	got, err := client.Login(t.Context(), true, func(p messages.LoginPage) { url = p.URL })
	if err != nil || got != want {
		t.Errorf("Login: got %+v, %v, want %+v", got, err, want)
	}
	if url != "" && url != "http://127.0.0.1:1/once" {
		t.Errorf("got the page %q, want http://127.0.0.1:1/once", url)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancelled := make(chan struct{})
	go func() {
		m := (<-b.session).(messages.Login)
		if m.Device {
			t.Error("got a Login with device authorization, want one without it")
		}
		m.Page <- messages.LoginPage{URL: "http://127.0.0.1:1/once"}
		<-m.Cancelled
		close(cancelled)
	}()
	if _, err := client.Login(ctx, false, func(messages.LoginPage) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("an interrupted sign-in: got %v, want context.Canceled", err)
	}
	<-cancelled
}

// A5: a watcher sees what lifecycle publishes, as it publishes it.
func TestWatchSeesTheSnapshot(t *testing.T) {
	b, client := run(t)
	lost := b.snapshot.Get()
	lost.Facts.LastHealth = time.Now()
	b.snapshot.Set(lost)
	lost.Available, lost.Reason, lost.State = false, messages.ReasonProcessExited, messages.StateStopped
	lost.Since = lost.Since.Add(1)
	enough := errors.New("enough")
	var seen []bool
	err := client.Watch(t.Context(), func(status messages.Status) error {
		seen = append(seen, status.CompanionAvailable)
		if len(seen) == 2 {
			return enough
		}
		b.snapshot.Set(lost)
		return nil
	})
	if !errors.Is(err, enough) || !reflect.DeepEqual(seen, []bool{true, false}) {
		t.Errorf("got %v, %v, want [true false], %v", seen, err, enough)
	}
}

// An actor that never answers, or never receives the message, does not block a caller forever.
func TestStuckOwners(t *testing.T) {
	for name, ask := range map[string]func(context.Context) error{
		"full mailbox": func(ctx context.Context) error {
			_, err := runtime{make(chan messages.ToLifecycle)}.Stop(ctx)
			return err
		},
		"no answer": func(ctx context.Context) error {
			_, err := catalogue{make(chan messages.ManifestCommand, 1)}.Models(ctx)
			return err
		},
		"no sign-in": func(ctx context.Context) error {
			_, err := signIn{make(chan messages.SessionCommand, 1)}.Login(ctx, false, func(messages.LoginPage) {})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if err := ask(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v, want the deadline", err)
				}
			})
		})
	}
}
