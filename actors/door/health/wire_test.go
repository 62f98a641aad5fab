package health

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/adapters/door/healthprobe"
	"companion/messages"
)

// A4: the actor and its prober on real sockets: a start, a pause and the recovery. The times are short, and only the
// order of the messages is tested.
func TestOnRealSockets(t *testing.T) {
	var paused atomic.Bool
	runtime := http.NewServeMux()
	runtime.HandleFunc("GET /v1/models", func(w http.ResponseWriter, r *http.Request) {
		if paused.Load() {
			<-r.Context().Done()
			return
		}
		_, _ = io.WriteString(w, `{"data":[{"id":"gemma"}]}`)
	})
	runtime.HandleFunc("POST /v1/completions", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"usage":{"completion_tokens":1}}`)
	})
	path := filepath.Join(t.TempDir(), "b.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	backEnd := &httptest.Server{Listener: ln, Config: &http.Server{Handler: runtime}}
	backEnd.Start()
	defer backEnd.Close()

	frontDoor := make(chan messages.ToFrontDoor, 1)
	var token atomic.Pointer[messages.Secret]
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if known := token.Load(); known == nil || r.Header.Get("Authorization") != "Bearer "+known.Reveal() {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		runtime.ServeHTTP(w, r)
	}))
	defer door.Close()

	lifecycle := make(chan messages.ToLifecycle)
	snapshot := messages.Snapshot{State: messages.StateStarting, Launch: 7, BaseURL: door.URL + "/v1",
		BackEnd: messages.BackEnd{Network: "unix", Address: path}, Model: messages.Model{Name: "gemma"}}
	watch := actorkit.NewWatch(snapshot)
	actor := New(Deps{Lifecycle: lifecycle, FrontDoor: frontDoor, Snapshot: watch,
		Door:        func() messages.DoorView { return messages.DoorView{} },
		Observation: func() messages.Observation { return messages.Observation{} }, Prober: healthprobe.New(),
		Beat: 20 * time.Millisecond, AnswerDeadline: 200 * time.Millisecond, Log: zap.NewNop()})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- actor.Serve(ctx) }()
	defer func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: got %v, want context.Canceled", err)
		}
	}()

	if _, ok := (<-lifecycle).(messages.ActorStarted); !ok {
		t.Fatal("got another first message, want ActorStarted")
	}
	given := (<-frontDoor).(messages.UseProbeToken).Token
	token.Store(&given)
	if m, ok := (<-lifecycle).(messages.HealthSucceeded); !ok || m.Launch != 7 {
		t.Fatalf("got %#v, want the success of the start", m)
	}
	snapshot.State = messages.StateReady
	watch.Set(snapshot)
	paused.Store(true)
	hung := false
	for !hung {
		if m, ok := (<-lifecycle).(messages.HealthFailed); ok {
			hung = m.Hung
		}
	}
	paused.Store(false)
	for recovered := false; !recovered; {
		_, recovered = (<-lifecycle).(messages.HealthSucceeded)
	}
}
