package custody

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"companion/adapters/authority/keychain"
	"companion/messages"

	"github.com/thejerf/suture/v4"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeKeychain is a keychain in memory whose faults a test sets.
type fakeKeychain struct {
	mu    sync.Mutex
	items map[keychain.Account]string
	log   []string
	fault func(op string, a keychain.Account) error // under no lock; nil means all is well
}

func (k *fakeKeychain) enter(ctx context.Context, op string, a keychain.Account) error {
	k.mu.Lock()
	fault := k.fault
	k.log = append(k.log, op+" "+string(a))
	k.mu.Unlock()
	if fault != nil {
		if err := fault(op, a); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (k *fakeKeychain) Get(ctx context.Context, a keychain.Account) (messages.Secret, bool, error) {
	if err := k.enter(ctx, "get", a); err != nil {
		return messages.Secret{}, false, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	v, ok := k.items[a]
	if !ok {
		return messages.Secret{}, false, nil
	}
	return messages.NewSecret(v), true, nil
}

func (k *fakeKeychain) Set(ctx context.Context, a keychain.Account, s messages.Secret) error {
	if err := k.enter(ctx, "set", a); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.items[a] = s.Reveal()
	return nil
}

func (k *fakeKeychain) Delete(ctx context.Context, a keychain.Account) error {
	if err := k.enter(ctx, "delete", a); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.items, a)
	return nil
}

func (k *fakeKeychain) set(fault func(string, keychain.Account) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fault = fault
}

func (k *fakeKeychain) item(a keychain.Account) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.items[a]
}

func failing(reason messages.Reason) func(string, keychain.Account) error {
	return func(op string, a keychain.Account) error { return &keychain.Error{Op: op, Account: a, Reason: reason} }
}

// house is the actor with its neighbours' mailboxes.
type house struct {
	keychain  *fakeKeychain
	mailbox   chan messages.ToCustody
	loopback  chan messages.LoopbackRequest
	lifecycle chan messages.ToLifecycle
	frontDoor chan messages.ToFrontDoor
	fatal     chan messages.Reason
	logs      *observer.ObservedLogs
	actor     *Actor
}

func newHouse() *house {
	core, logs := observer.New(zap.DebugLevel)
	h := &house{
		keychain: &fakeKeychain{items: map[keychain.Account]string{}}, mailbox: make(chan messages.ToCustody, 8), loopback: make(chan messages.LoopbackRequest, 8),
		lifecycle: make(chan messages.ToLifecycle, 100), frontDoor: make(chan messages.ToFrontDoor, 100),
		fatal: make(chan messages.Reason, 8), logs: logs,
	}
	h.actor = New(Deps{
		Mailbox: h.mailbox, Loopback: h.loopback, Lifecycle: h.lifecycle, FrontDoor: h.frontDoor, Keychain: h.keychain,
		Fatal: func(r messages.Reason) { h.fatal <- r }, Log: zap.New(core),
	})
	return h
}

// start runs the actor under a supervisor, as in the program, until the test ends.
func (h *house) start(t *testing.T) {
	s := suture.New("test", suture.Spec{FailureBackoff: time.Second, EventHook: func(suture.Event) {}})
	s.Add(h.actor)
	ctx, cancel := context.WithCancel(t.Context())
	done := s.ServeBackground(ctx)
	t.Cleanup(func() { cancel(); <-done })
}

func (h *house) store(s messages.Session) messages.Reason {
	reply := make(chan messages.Reason, 1)
	h.mailbox <- messages.StoreSession{Session: s, Reply: reply}
	return <-reply
}

func (h *house) load() messages.LoadedSession {
	reply := make(chan messages.LoadedSession, 1)
	h.mailbox <- messages.LoadSession{Reply: reply}
	return <-reply
}

// said drains what the lifecycle was told.
func said[M any](box chan M) (all []string) {
	synctest.Wait()
	for {
		select {
		case m := <-box:
			all = append(all, fmt.Sprintf("%T%+v", m, m))
		default:
			return all
		}
	}
}

func want(t *testing.T, got []string, wanted ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(wanted) {
		t.Fatalf("got %v, want %v", got, wanted)
	}
}

const (
	started   = "messages.ActorStarted{Actor:authority/custody}"
	storedMsg = "messages.TokenStored{}"
	useToken  = "messages.UseLoopbackToken{Token:[redacted]}"
	dropToken = "messages.DropLoopbackToken{}"
)

func testSession(n int) messages.Session {
	return messages.Session{
		AccessToken: messages.NewSecret(fmt.Sprintf("access-%d", n)), RefreshToken: messages.NewSecret(fmt.Sprintf("refresh-%d", n)),
		Meta: messages.SessionMeta{Issuer: "https://hub.example", ClientID: fmt.Sprint(n), AccessExpires: time.Unix(int64(n), 0).UTC(),
			User: messages.User{Subject: "s", Name: "Ada"}},
	}
}

// K6, A4, A9: the token is stored first and used afterwards; a restart stores the same one; another
// start of the daemon has another one.
func TestLoopbackToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse()
		h.start(t)
		want(t, said(h.lifecycle), started, storedMsg)
		want(t, said(h.frontDoor), useToken)
		token := h.keychain.item(keychain.LoopbackToken)
		if len(token) != 43 {
			t.Fatalf("%d characters", len(token))
		}
		h.keychain.set(func(op string, a keychain.Account) error { panic("a broken keychain library") })
		reply := make(chan messages.LoadedSession, 1)
		h.mailbox <- messages.LoadSession{Reply: reply}
		if got := <-reply; got.Found || got.Reason != messages.ReasonKeychainTimeout {
			t.Fatalf("%+v", got)
		}
		h.keychain.set(nil)
		time.Sleep(2 * time.Second) // the supervisor's pause
		want(t, said(h.lifecycle), started, storedMsg)
		if h.keychain.item(keychain.LoopbackToken) != token {
			t.Fatal("a restart made another token")
		}
		if other := newHouse(); other.actor.token.Reveal() == token {
			t.Fatal("two starts share a token")
		}
	})
}

// K6: at shutdown the token goes away, at the front door too, and nothing brings it back.
func TestClearLoopbackToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse()
		h.start(t)
		said(h.frontDoor)
		reply := make(chan messages.Reason, 1)
		h.loopback <- messages.ClearLoopbackToken{Reply: reply}
		if r := <-reply; r != messages.ReasonOK {
			t.Fatal(r)
		}
		h.loopback <- messages.DeliverLoopbackToken{}
		time.Sleep(time.Hour)
		want(t, said(h.frontDoor), dropToken)
		if h.keychain.item(keychain.LoopbackToken) != "" {
			t.Fatal("the token is still there")
		}
	})
}

// A9: a new front door hears the token again, a new lifecycle what is known of it.
func TestConfirm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse()
		h.start(t)
		said(h.frontDoor)
		said(h.lifecycle)
		h.loopback <- messages.DeliverLoopbackToken{}
		h.loopback <- messages.ConfirmCustody{}
		want(t, said(h.frontDoor), useToken)
		want(t, said(h.lifecycle), storedMsg)
	})
}

// K3, K7: a locked keychain loses the token with its reason, is tried again, and nothing stands in.
func TestLockedThenUnlocked(t *testing.T) {
	for _, reason := range []messages.Reason{messages.ReasonKeychainLocked, messages.ReasonKeychainDenied, messages.ReasonKeychainTimeout} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse()
			h.keychain.set(failing(reason))
			h.start(t)
			lost := "messages.TokenLost{Reason:" + string(reason) + "}"
			want(t, said(h.lifecycle), started, lost)
			h.loopback <- messages.DeliverLoopbackToken{}
			h.loopback <- messages.ConfirmCustody{}
			want(t, said(h.lifecycle), lost)
			want(t, said(h.frontDoor))
			if len(h.fatal) != 0 {
				t.Fatal("called fatal")
			}
			h.keychain.set(nil)
			time.Sleep(10 * time.Second)
			want(t, said(h.lifecycle), storedMsg)
			want(t, said(h.frontDoor), useToken)
		})
	}
}

// K3: no keychain service is fatal, once.
func TestNoService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse()
		h.keychain.set(failing(messages.ReasonKeychainUnavailable))
		h.start(t)
		time.Sleep(time.Hour)
		if len(h.fatal) != 1 || <-h.fatal != messages.ReasonKeychainUnavailable {
			t.Fatal("fatal was not called once")
		}
		want(t, said(h.frontDoor))
	})
}

// K7: while a keychain call hangs the actor answers, and shutdown waits for nothing.
func TestHungKeychain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse()
		hang := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		h.keychain.set(func(string, keychain.Account) error {
			select {
			case <-hang:
			case <-ctx.Done():
			}
			return nil
		})
		done := make(chan error, 1)
		go func() { done <- h.actor.Serve(ctx) }()
		replies := make(chan messages.Reason, maxJobs+8)
		for range maxJobs + 4 {
			reply := make(chan messages.Reason, 1)
			h.mailbox <- messages.ClearSession{Reply: reply}
			go func() { replies <- <-reply }()
		}
		synctest.Wait()
		if n := len(replies); n != 5 { // the token's own job is the first of maxJobs
			t.Fatalf("%d were told that the keychain is busy", n)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := len(replies); n != maxJobs+4 {
			t.Fatalf("%d of %d were answered", n, maxJobs+4)
		}
	})
}

// K5: a session comes back whole, with and without a refresh token.
func TestSessionRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse()
		h.start(t)
		if got := h.load(); got.Found || got.Reason != messages.ReasonOK {
			t.Fatalf("%+v", got)
		}
		for n := range 3 {
			s := testSession(n)
			if n == 1 {
				s.RefreshToken = messages.Secret{}
			}
			if r := h.store(s); r != messages.ReasonOK {
				t.Fatal(r)
			}
			got := h.load()
			if !got.Found || got.Session.Meta != s.Meta || got.Session.AccessToken.Reveal() != s.AccessToken.Reveal() ||
				got.Session.RefreshToken.Reveal() != s.RefreshToken.Reveal() {
				t.Fatalf("%+v", got)
			}
		}
		token := h.keychain.item(keychain.LoopbackToken)
		reply := make(chan messages.Reason, 1)
		h.mailbox <- messages.ClearSession{Reply: reply}
		if r := <-reply; r != messages.ReasonOK || h.load().Found {
			t.Fatal("the session is still there")
		}
		// O9: the loopback token is not touched.
		if h.keychain.item(keychain.LoopbackToken) != token {
			t.Fatal("signing out touched the loopback token")
		}
	})
}

// K5: whatever the keychain holds, a session is whole or none; K4: a failing keychain is neither.
func TestTornSession(t *testing.T) {
	good := `{"meta":{"issuer":"i","clientId":"c","scope":"s","accessExpires":"2026-01-01T00:00:00Z","user":{"sub":"s","provider":"","id":"","name":"","role":""}},"refresh":true}`
	rows := map[string]struct {
		items map[keychain.Account]string
		found bool
	}{
		"whole":            {map[keychain.Account]string{keychain.SessionMetadata: good, keychain.AccessToken: "a", keychain.RefreshToken: "r"}, true},
		"no metadata":      {map[keychain.Account]string{keychain.AccessToken: "a", keychain.RefreshToken: "r"}, false},
		"no access token":  {map[keychain.Account]string{keychain.SessionMetadata: good, keychain.RefreshToken: "r"}, false},
		"no refresh token": {map[keychain.Account]string{keychain.SessionMetadata: good, keychain.AccessToken: "a"}, false},
		"truncated":        {map[keychain.Account]string{keychain.SessionMetadata: good[:40], keychain.AccessToken: "a", keychain.RefreshToken: "r"}, false},
		"unknown key":      {map[keychain.Account]string{keychain.SessionMetadata: `{"x":1}`, keychain.AccessToken: "a", keychain.RefreshToken: "r"}, false},
		"not JSON":         {map[keychain.Account]string{keychain.SessionMetadata: `hello`, keychain.AccessToken: "a", keychain.RefreshToken: "r"}, false},
	}
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			got := loadSession(t.Context(), &fakeKeychain{items: r.items})
			if got.Found != r.found || got.Reason != messages.ReasonOK {
				t.Fatalf("%+v", got)
			}
		})
	}
	k := &fakeKeychain{items: rows["whole"].items}
	for _, reason := range []messages.Reason{messages.ReasonKeychainLocked, messages.ReasonKeychainUnavailable} {
		k.set(failing(reason))
		if got := loadSession(t.Context(), k); got.Found || got.Reason != reason {
			t.Fatalf("%+v", got)
		}
	}
	k.set(failing(messages.ReasonInvalidSecret)) // oversized
	if got := loadSession(t.Context(), k); got.Found || got.Reason != messages.ReasonOK {
		t.Fatalf("%+v", got)
	}
}

// K5 as a property: stop the daemon after any number of keychain operations of a store or a clear; what
// loads then is the old session, the new one or none, never a mixture.
func TestCrashBetweenWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := &fakeKeychain{items: map[keychain.Account]string{}}
		before, after := testSession(1), testSession(2)
		if rapid.Bool().Draw(t, "old without refresh") {
			before.RefreshToken = messages.Secret{}
		}
		if rapid.Bool().Draw(t, "new without refresh") {
			after.RefreshToken = messages.Secret{}
		}
		if r := storeSession(context.Background(), k, before); r != messages.ReasonOK {
			t.Fatal(r)
		}
		left := rapid.IntRange(0, 6).Draw(t, "operations before the crash")
		ctx, crash := context.WithCancel(context.Background())
		defer crash()
		k.set(func(string, keychain.Account) error {
			if left == 0 {
				crash()
			}
			left--
			return nil
		})
		if rapid.Bool().Draw(t, "clear") {
			clearSession(ctx, k)
		} else {
			storeSession(ctx, k, after)
		}
		k.set(nil)
		got := loadSession(context.Background(), k)
		if got.Reason != messages.ReasonOK {
			t.Fatal(got.Reason)
		}
		same := func(s messages.Session) bool {
			return got.Session.Meta == s.Meta && got.Session.AccessToken.Reveal() == s.AccessToken.Reveal() &&
				got.Session.RefreshToken.Reveal() == s.RefreshToken.Reveal()
		}
		if got.Found && !same(before) && !same(after) {
			t.Fatalf("a mixture: %+v", got.Session.Meta)
		}
	})
}

// Rule 2: nothing that custody says or logs shows a secret.
func TestLogsHoldNoSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse()
		h.keychain.set(failing(messages.ReasonKeychainLocked))
		h.start(t)
		synctest.Wait()
		h.keychain.set(nil)
		time.Sleep(time.Minute)
		if h.logs.Len() < 2 {
			t.Fatal("nothing was logged")
		}
		text := fmt.Sprintf("%+v", h.logs.All()) + fmt.Sprint(said(h.frontDoor), said(h.lifecycle))
		if token := h.keychain.item(keychain.LoopbackToken); token == "" || strings.Contains(text, token) {
			t.Fatal("the token is in the log")
		}
	})
}
