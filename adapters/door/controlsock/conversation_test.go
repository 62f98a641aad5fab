package controlsock

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"companion/actors/actorkit"
	"companion/messages"
)

// X2: every command reaches the daemon with its arguments, and its answer reaches the client.
func TestCommands(t *testing.T) {
	d := &daemon{}
	client, _, _ := serve(t, d)
	ctx := t.Context()
	for _, test := range []struct {
		call string
		do   func() (any, error)
		want any
	}{
		{"logout", func() (any, error) { return client.Logout(ctx) }, messages.LogoutResult{Reason: messages.ReasonOK, Hub: messages.ReasonTokenExchangeFailed}},
		{"start", func() (any, error) { return client.Start(ctx) }, messages.ReasonOK},
		{"stop", func() (any, error) { return client.Stop(ctx) }, messages.ReasonOK},
		{"restart", func() (any, error) { return client.Restart(ctx) }, messages.ReasonOK},
		{"confirm 127.0.0.1:7 127.0.0.1:8", func() (any, error) {
			return client.Confirms(ctx, netip.MustParseAddrPort("127.0.0.1:7"), netip.MustParseAddrPort("127.0.0.1:8"))
		}, true},
		{"reload tokens", func() (any, error) { return client.ReloadTokens(ctx) }, messages.ReasonOK},
		{"pull ", func() (any, error) { return client.Pull(ctx, "") }, messages.ReasonOK},
		{"use gemma", func() (any, error) { return client.Use(ctx, "gemma") }, messages.ReasonOK},
		{"use ", func() (any, error) { return client.Use(ctx, "") }, messages.ReasonOK},
		{"pull gemma", func() (any, error) { return client.Pull(ctx, "gemma") }, messages.ReasonOK},
		{"whoami", func() (any, error) { return client.WhoAmI(ctx) }, messages.WhoAmIResult{User: ada, Reason: messages.ReasonOK}},
		{"reload", func() (any, error) { return client.Reload(ctx) }, messages.ReasonOK},
		{"prune true", func() (any, error) { return client.Prune(ctx, true) }, pruned},
		{"prune false", func() (any, error) { return client.Prune(ctx, false) }, pruned},
		{"models", func() (any, error) { return client.Models(ctx) }, list},
	} {
		t.Run(test.call, func(t *testing.T) {
			d.fail.Store(nil)
			got, err := test.do()
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			if call := <-d.calls; call != test.call {
				t.Errorf("got the call %q, want %q", call, test.call)
			}
			d.fails(errors.New("with a secret inside"))
			_, err = test.do()
			<-d.calls
			var refused *Error
			if !errors.As(err, &refused) || refused.Code != CodeInternal || strings.Contains(err.Error(), "secret") {
				t.Errorf("a failing command: got %v, want an internal error without details", err)
			}
			d.fails(fmt.Errorf("waiting: %w", context.DeadlineExceeded))
			_, err = test.do()
			<-d.calls
			if !errors.As(err, &refused) || refused.Code != CodeTimeout {
				t.Errorf("a late command: got %v, want a time-out", err)
			}
		})
	}
}

func TestStatus(t *testing.T) {
	since := time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC)
	want := messages.Status{Version: "1", CompanionAvailable: true, Lifecycle: messages.StateReady, Since: since,
		FrontDoor: messages.StatusFrontDoor{Verdicts: map[messages.Reason]int64{messages.ReasonOK: 3}}}
	client, _, stop := serve(t, &daemon{view: actorkit.NewWatch(want)})
	got, err := client.Status(t.Context())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Status: got %+v, %v; want %+v", got, err, want)
	}
	stop()
	if _, err := client.Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Status of a daemon that has ended: got %v, want ErrNotRunning", err)
	}
}

var errEnough = errors.New("enough")

// A5, X2: one line at once, one at each change of availability or lifecycle, and none for other changes.
func TestWatch(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(second int, state messages.State, available bool, pid int) messages.Status {
		return messages.Status{Lifecycle: state, CompanionAvailable: available, PID: pid,
			Since: start.Add(time.Duration(second) * time.Second)}
	}
	view := actorkit.NewWatch(at(0, messages.StateStopped, false, 1))
	d := &daemon{view: view, looked: make(chan struct{})}
	client, _, _ := serve(t, d)
	go func() { <-d.looked }()
	steps := []struct {
		set  messages.Status
		line bool
	}{
		{at(0, messages.StateStopped, false, 2), false},
		{at(1, messages.StateStarting, false, 3), true},
		{at(2, messages.StateReady, true, 4), true},
		{at(2, messages.StateReady, true, 5), false},
		{at(3, messages.StateReady, false, 6), true},
		{at(4, messages.StateReady, false, 7), true}, // it was available in between
	}
	var seen, want []int
	want = append(want, 1)
	for _, s := range steps {
		if s.line {
			want = append(want, s.set.PID)
		}
	}
	next := 0
	err := client.Watch(t.Context(), func(status messages.Status) error {
		seen = append(seen, status.PID)
		if next == len(steps) {
			return errEnough
		}
		for next < len(steps) {
			step := steps[next]
			next++
			view.Set(step.set)
			<-d.looked // the server must see each value
			if step.line {
				break
			}
		}
		return nil
	})
	if !errors.Is(err, errEnough) || !reflect.DeepEqual(seen, want) {
		t.Errorf("got %v (%v), want %v", seen, err, want)
	}
}

func TestWatchEvery(t *testing.T) {
	client, _, _ := serve(t, &daemon{})
	lines := 0
	err := client.WatchEvery(t.Context(), minEvery, func(messages.Status) error {
		if lines++; lines == 3 {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Errorf("three lines without a change: got %v, want %v", err, errEnough)
	}
	var refused *Error
	err = client.WatchEvery(t.Context(), time.Millisecond, func(messages.Status) error { return nil })
	if !errors.As(err, &refused) || refused.Code != CodeBadRequest {
		t.Errorf("an interval that is too short: got %v, want a bad request", err)
	}
}

func TestWatchEnds(t *testing.T) {
	client, _, stop := serve(t, &daemon{})
	err := client.Watch(t.Context(), func(messages.Status) error { stop(); return nil })
	if !errors.Is(err, ErrNotRunning) {
		t.Errorf("the daemon has ended: got %v, want ErrNotRunning", err)
	}
	client, _, _ = serve(t, &daemon{})
	ctx, cancel := context.WithCancelCause(t.Context())
	err = client.Watch(ctx, func(messages.Status) error { cancel(errEnough); return nil })
	if !errors.Is(err, errEnough) {
		t.Errorf("the caller gave up: got %v, want %v", err, errEnough)
	}
}

func TestLogin(t *testing.T) {
	page := messages.LoginPage{
		URL: "https://hub.example/device", Code: "ABCD-EFGH", Complete: "https://hub.example/device?user_code=ABCD-EFGH",
		Until: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC),
	}
	want := messages.LoginResult{Reason: messages.ReasonAuthorizationServerError, Detail: "access_denied", User: ada, Hub: messages.ReasonIssuerMismatch}
	client, _, _ := serve(t, &daemon{onLogin: func(_ context.Context, onPage func(messages.LoginPage)) (messages.LoginResult, error) {
		onPage(page)
		return want, nil
	}})
	var pages []messages.LoginPage
	got, err := client.Login(t.Context(), true, func(p messages.LoginPage) { pages = append(pages, p) })
	if err != nil || got != want || !reflect.DeepEqual(pages, []messages.LoginPage{page}) {
		t.Errorf("Login: got %+v, %v after the pages %v, want %+v after %v", got, err, pages, want, page)
	}

	client, _, _ = serve(t, &daemon{onLogin: func(context.Context, func(messages.LoginPage)) (messages.LoginResult, error) {
		return messages.LoginResult{}, errors.New("with a secret inside")
	}})
	var refused *Error
	if _, err := client.Login(t.Context(), false, func(messages.LoginPage) {}); !errors.As(err, &refused) || refused.Code != CodeInternal {
		t.Errorf("a failing sign-in: got %v, want an internal error", err)
	}
}

// An interrupted command line cancels its sign-in, and stops waiting for its pull.
func TestLeavingCancels(t *testing.T) {
	d := &daemon{block: make(chan struct{})}
	d.onLogin = func(ctx context.Context, onPage func(messages.LoginPage)) (messages.LoginResult, error) {
		onPage(messages.LoginPage{URL: "http://127.0.0.1:1/once"})
		_, err := d.take(ctx, "login")
		return messages.LoginResult{}, err
	}
	client, _, _ := serve(t, d)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := client.Login(ctx, false, func(messages.LoginPage) { <-d.calls; cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Login: got %v, want context.Canceled", err)
	}
	if err := <-d.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the sign-in in the daemon: got %v, want context.Canceled", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	go func() { <-d.calls; cancel() }()
	if _, err := client.Pull(ctx, "gemma"); !errors.Is(err, context.Canceled) {
		t.Errorf("Pull: got %v, want context.Canceled", err)
	}
	<-d.ended
}

// X7: when the daemon ends, it ends the waiting commands.
func TestStopEndsCommands(t *testing.T) {
	d := &daemon{block: make(chan struct{})}
	client, _, stop := serve(t, d)
	result := make(chan error, 1)
	go func() { _, err := client.Stop(context.Background()); result <- err }()
	<-d.calls
	stop()
	<-d.ended
	if err := <-result; err == nil {
		t.Error("a command that was cut off: got success, want an error")
	}
}

// raw sends bytes and returns the status of the answer.
func raw(t *testing.T, path, text string) int {
	t.Helper()
	request, err := http.NewRequest(http.MethodPost, "http://companion/v1/pull", bytes.NewReader([]byte(text)))
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}}
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var body errorBody
	if err := json.NewDecoder(answer.Body).Decode(&body); err != nil || (body.Error == nil) != (answer.StatusCode == 200) {
		t.Errorf("status %d: got %v and an answer without an error, want one exactly when it fails", answer.StatusCode, err)
	}
	return answer.StatusCode
}

// T16: invalid and oversized commands are refused, and the next command is served.
func TestBadCommands(t *testing.T) {
	d := &daemon{}
	client, path, _ := serve(t, d)
	for name, body := range map[string]string{
		"not JSON": "name=x", "unknown field": `{"name":"x","path":"/etc"}`, "empty": "",
		"too large": `{"name":"` + strings.Repeat("x", maxBody) + `"}`, "wrong type": `{"name":1}`,
	} {
		if status := raw(t, path, body); status != http.StatusBadRequest {
			t.Errorf("%s: got status %d, want 400", name, status)
		}
	}
	if status := raw(t, path, `{"name":"x"}`); status != http.StatusOK {
		t.Errorf("a valid command after invalid ones: got status %d, want 200", status)
	}
	<-d.calls
	var refused *Error
	if _, err := client.command(t.Context(), askWithin, "/v1/unheard", nil); !errors.As(err, &refused) || refused.Code != CodeNotFound {
		t.Errorf("an unknown command: got %v, want not_found", err)
	}
	if len(d.calls) != 0 {
		t.Errorf("got the refused command %s at the daemon, want none", <-d.calls)
	}
}

// A9: a panic in one command is contained.
func TestPanicIsContained(t *testing.T) {
	d := &daemon{onLogin: func(context.Context, func(messages.LoginPage)) (messages.LoginResult, error) { panic("planted") }}
	client, _, _ := serve(t, d)
	if _, err := client.Login(t.Context(), false, func(messages.LoginPage) {}); err == nil {
		t.Error("a panicking sign-in: got success, want an error")
	}
	if _, err := client.Status(t.Context()); err != nil {
		t.Errorf("Status after a panic: got %v, want nil", err)
	}
}

// BenchmarkWatchNotice measures the time from a change in the daemon to the line at a watcher (docs/benchmarks.md:
// from SIGKILL to the watcher, p99 at most 5 ms).
func BenchmarkWatchNotice(b *testing.B) {
	view := actorkit.NewWatch(messages.Status{})
	client, _, _ := serve(b, &daemon{view: view})
	var worst time.Duration
	n := 0
	var set time.Time
	err := client.Watch(b.Context(), func(messages.Status) error {
		if n > 0 {
			worst = max(worst, time.Since(set))
		}
		if n++; n > b.N {
			return errEnough
		}
		set = time.Now()
		view.Set(messages.Status{PID: n, Since: set})
		return nil
	})
	if !errors.Is(err, errEnough) {
		b.Fatal(err)
	}
	b.ReportMetric(float64(worst.Microseconds()), "µs-worst")
}
