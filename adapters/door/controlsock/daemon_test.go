package controlsock

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// daemon stands in for the control actor.
type daemon struct {
	view    *actorkit.Watch[messages.Status]
	calls   chan string
	block   chan struct{} // when not nil, commands wait for it or for the end of their context
	fail    atomic.Pointer[error]
	ended   chan error    // receives why a blocked command ended
	looked  chan struct{} // when not nil, receives once for each call of Next or Status
	asked   chan struct{} // when not nil, receives status requests, unless it is full
	onLogin func(ctx context.Context, onPage func(messages.LoginPage)) (messages.LoginResult, error)
}

func (d *daemon) Status() messages.Status {
	if d.asked != nil {
		select {
		case d.asked <- struct{}{}:
		default:
		}
	}
	return d.view.Get()
}

func (d *daemon) Next() (messages.Status, <-chan struct{}) {
	status, changed := d.view.Next()
	if d.looked != nil {
		d.looked <- struct{}{}
	}
	return status, changed
}

func (d *daemon) take(ctx context.Context, call string) (messages.Reason, error) {
	d.calls <- call
	if d.block != nil {
		select {
		case <-d.block:
		case <-ctx.Done():
			d.ended <- ctx.Err()
			return "", ctx.Err()
		}
	}
	if fail := d.fail.Load(); fail != nil {
		return messages.ReasonOK, *fail
	}
	return messages.ReasonOK, nil
}

// fails makes the following commands fail with err.
func (d *daemon) fails(err error) { d.fail.Store(&err) }

func (d *daemon) Logout(ctx context.Context) (messages.LogoutResult, error) {
	reason, err := d.take(ctx, "logout")
	return messages.LogoutResult{Reason: reason, Hub: messages.ReasonTokenExchangeFailed}, err
}

func (d *daemon) Start(ctx context.Context) (messages.Reason, error)   { return d.take(ctx, "start") }
func (d *daemon) Stop(ctx context.Context) (messages.Reason, error)    { return d.take(ctx, "stop") }
func (d *daemon) Restart(ctx context.Context) (messages.Reason, error) { return d.take(ctx, "restart") }
func (d *daemon) ReloadTokens(ctx context.Context) (messages.Reason, error) {
	return d.take(ctx, "reload tokens")
}

func (d *daemon) Confirms(ctx context.Context, client, server netip.AddrPort) (bool, error) {
	_, err := d.take(ctx, "confirm "+client.String()+" "+server.String())
	return true, err
}

func (d *daemon) Pull(ctx context.Context, name string) (messages.Reason, error) {
	return d.take(ctx, "pull "+name)
}

func (d *daemon) Use(ctx context.Context, name string) (messages.Reason, error) {
	return d.take(ctx, "use "+name)
}

var (
	ada  = messages.User{Subject: "s1", Provider: "dev", ID: "1", Name: "Ada", Role: "member"}
	list = messages.ModelList{
		Models: []messages.ModelRow{{Name: "gemma", Version: "1", Size: 7, Default: true, Selected: true, Here: true, Verified: true, PartialBytes: 3}},
		Reason: messages.ReasonOK,
	}
)

func (d *daemon) WhoAmI(ctx context.Context) (messages.WhoAmIResult, error) {
	reason, err := d.take(ctx, "whoami")
	return messages.WhoAmIResult{User: ada, Reason: reason}, err
}

func (d *daemon) Models(ctx context.Context) (messages.ModelList, error) {
	_, err := d.take(ctx, "models")
	return list, err
}

func (d *daemon) Reload(ctx context.Context) (messages.Reason, error) { return d.take(ctx, "reload") }

func (d *daemon) Prune(ctx context.Context, dryRun bool) (messages.PruneResult, error) {
	_, err := d.take(ctx, fmt.Sprint("prune ", dryRun))
	return pruned, err
}

var pruned = messages.PruneResult{
	Items: []messages.PrunedItem{{Kind: "model", Bytes: 7, Modified: time.Unix(1_700_000_000, 0).UTC()}}, Reason: messages.ReasonOK,
}

func (d *daemon) Login(ctx context.Context, _ bool, onPage func(messages.LoginPage)) (messages.LoginResult, error) {
	return d.onLogin(ctx, onPage)
}

// serve runs a Server for d until the test ends, or stop is called.
func serve(t testing.TB, d *daemon) (client *Client, path string, stop func()) {
	t.Helper()
	if d.view == nil {
		d.view = actorkit.NewWatch(messages.Status{})
	}
	d.calls, d.ended = make(chan string, 16), make(chan error, 16)
	path = filepath.Join(t.TempDir(), "run", "control.sock")
	ln, err := Listen(path, func(err error) { t.Errorf("got a refused connection, want none: %v", err) })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	server := &Server{View: d, SignIn: d, Catalogue: d, Runtime: d, Endpoint: d, Log: zap.NewNop()}
	go func() { done <- server.Serve(ctx, ln) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: got %v, want nil", err)
		}
	}
	t.Cleanup(stop)
	return Dial(path), path, stop
}
