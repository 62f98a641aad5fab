package main

import (
	"context"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/adapters/config"
	"companion/adapters/door/controlsock"
	"companion/messages"
)

// answering is a control socket whose every command ends with one reason: the real daemon cannot be
// made to give all of them on demand.
type answering struct {
	reason messages.Reason
	hub    messages.Reason // of Logout
	status messages.Status
}

func (a answering) Login(_ context.Context, device bool, onPage func(messages.LoginPage)) (messages.LoginResult, error) {
	page := messages.LoginPage{URL: "http://127.0.0.1:9/start", Until: time.Now().Add(2 * time.Minute)}
	if device {
		page.URL, page.Code, page.Complete = "https://hub.example/device", "ABCD-EFGH", "https://hub.example/device?user_code=ABCD-EFGH"
	}
	onPage(page)
	return messages.LoginResult{Reason: a.reason, User: messages.User{Name: "Ada"}}, nil
}

func (a answering) Reload(context.Context) (messages.Reason, error) { return a.reason, nil }

func (a answering) WhoAmI(context.Context) (messages.WhoAmIResult, error) {
	return messages.WhoAmIResult{Reason: a.reason, User: messages.User{Name: "Ada", Role: "member", Provider: "dev"}}, nil
}

func (a answering) Models(context.Context) (messages.ModelList, error) {
	return messages.ModelList{Reason: a.reason, Models: []messages.ModelRow{{Name: "gemma", Version: "1", Size: 1 << 30, Default: true, Here: true, Verified: true}}}, nil
}

func (a answering) Prune(_ context.Context, dryRun bool) (messages.PruneResult, error) {
	return messages.PruneResult{Reason: a.reason, Items: []messages.PrunedItem{{Kind: "model", Bytes: 3 << 20, Modified: time.Unix(1_700_000_000, 0)}}}, nil
}

func (a answering) Use(context.Context, string) (messages.Reason, error)  { return a.reason, nil }
func (a answering) Pull(context.Context, string) (messages.Reason, error) { return a.reason, nil }
func (a answering) Logout(context.Context) (messages.LogoutResult, error) {
	return messages.LogoutResult{Reason: a.reason, Hub: a.hub}, nil
}
func (a answering) Start(context.Context) (messages.Reason, error)        { return a.reason, nil }
func (a answering) Stop(context.Context) (messages.Reason, error)         { return a.reason, nil }
func (a answering) Restart(context.Context) (messages.Reason, error)      { return a.reason, nil }
func (a answering) ReloadTokens(context.Context) (messages.Reason, error) { return a.reason, nil }

// Confirms denies every connection: the endpoint that a script names is another program's.
func (a answering) Confirms(context.Context, netip.AddrPort, netip.AddrPort) (bool, error) {
	return false, nil
}

func (a answering) Status() messages.Status { return a.status }

// startDaemon serves until the script ends: daemon REASON [fetching].
func startDaemon(ts *testscript.TestScript, neg bool, given []string) {
	fetching := len(given) == 2 && given[1] == "fetching"
	if neg || len(given) != 1 && !fetching {
		ts.Fatalf("usage: daemon REASON [fetching]")
	}
	socket := filepath.Join(ts.Getenv("XDG_RUNTIME_DIR"), "companion", "control.sock")
	listener, err := controlsock.Listen(socket, func(error) {})
	ts.Check(err)
	status := working()
	status.CompanionAvailable, status.Reason = false, messages.ReasonNotReady
	if reason := messages.Reason(given[0]); exitOf(reason) == exitKeychain {
		status.Reason, status.Facts.Token = reason, false
	}
	if fetching {
		status.Transfers = []messages.Transfer{{Name: "gemma", Bytes: 1, Total: 2, SecondsLeft: 60}}
	}
	fake := answering{reason: messages.Reason(given[0]), hub: messages.ReasonOK, status: status}
	server := controlsock.Server{View: fake, SignIn: fake, Catalogue: fake, Runtime: fake, Endpoint: fake, Log: zap.NewNop()}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, listener) }()
	ts.Defer(func() {
		cancel()
		ts.Check(<-done)
	})
}

// holdLock acts as another daemon of the same user until the script ends: lock [STATE_HOME]. With an argument that
// one has another state folder and the same run-time folder.
func holdLock(ts *testscript.TestScript, neg bool, given []string) {
	if neg || len(given) > 1 {
		ts.Fatalf("usage: lock [STATE_HOME]")
	}
	state := ts.Getenv("XDG_STATE_HOME")
	if len(given) == 1 {
		state = ts.MkAbs(given[0])
	}
	unlock, err := lockDaemon(config.Places{
		Lock: filepath.Join(state, "companion", "lock"), Runtime: filepath.Join(ts.Getenv("XDG_RUNTIME_DIR"), "companion"),
	})
	ts.Check(err)
	ts.Defer(unlock)
}

// Next never announces a change.
func (a answering) Next() (messages.Status, <-chan struct{}) {
	return actorkit.NewWatch(a.status).Next()
}
