package custody

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thejerf/suture/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"companion/actors/actorkit"
	"companion/adapters/authority/keychain"
	"companion/messages"
)

// fakeKeychain is a keychain in memory into which a test injects faults.
type fakeKeychain struct {
	mu    sync.Mutex
	items map[keychain.Account]string
	log   []string
	fault func(op string, a keychain.Account) error // called without the lock; nil means no fault
	hang  bool                                      // calls end with their context only
}

func (k *fakeKeychain) enter(ctx context.Context, op string, a keychain.Account) error {
	k.mu.Lock()
	fault := k.fault
	if !keychain.MayAsk(ctx) {
		op = "quiet " + op
	}
	k.log = append(k.log, op+" "+string(a))
	hang := k.hang
	k.mu.Unlock()
	if hang {
		<-ctx.Done()
		return &keychain.Error{Op: op, Account: a, Reason: messages.ReasonKeychainTimeout}
	}
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

func (k *fakeKeychain) change(f func(*fakeKeychain)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(k)
}

func (k *fakeKeychain) calls() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.log)
}

func (k *fakeKeychain) item(a keychain.Account) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.items[a]
}

func failing(reason messages.Reason) func(string, keychain.Account) error {
	return func(op string, a keychain.Account) error { return &keychain.Error{Op: op, Account: a, Reason: reason} }
}

// harness is the actor with the mailboxes of the actors that it talks to.
type harness struct {
	keychain  *fakeKeychain
	mailbox   chan messages.ToCustody
	loopback  chan messages.LoopbackRequest
	lifecycle chan messages.ToLifecycle
	frontDoor chan messages.ToFrontDoor
	fatal     chan messages.Reason
	changed   *actorkit.Watch[int]
	signal    func() // a change that the keychain signals; set once the actor runs
	logs      *observer.ObservedLogs
	actor     *Actor
}

func newHarness() *harness {
	core, logs := observer.New(zap.DebugLevel)
	h := &harness{
		keychain: &fakeKeychain{items: map[keychain.Account]string{}}, mailbox: make(chan messages.ToCustody, 8), loopback: make(chan messages.LoopbackRequest, 8),
		lifecycle: make(chan messages.ToLifecycle, 100), frontDoor: make(chan messages.ToFrontDoor, 100),
		fatal: make(chan messages.Reason, 8), logs: logs, changed: actorkit.NewWatch(0),
	}
	h.actor = New(Deps{
		Inbox: h.mailbox, Loopback: h.loopback, Lifecycle: h.lifecycle, FrontDoor: h.frontDoor, Keychain: h.keychain,
		Watch: func(ctx context.Context, changed func()) { h.signal = changed; <-ctx.Done() }, Changed: h.changed,
		Beat: beat, Fatal: func(r messages.Reason) { h.fatal <- r }, Log: zap.New(core),
	})
	return h
}

// start runs the actor under a supervisor, as in the program, until the test ends.
func (h *harness) start(t *testing.T) {
	s := suture.New("test", suture.Spec{FailureBackoff: time.Second, EventHook: func(suture.Event) {}})
	s.Add(h.actor)
	ctx, cancel := context.WithCancel(t.Context())
	done := s.ServeBackground(ctx)
	t.Cleanup(func() { cancel(); <-done })
}

func (h *harness) store(s messages.Session) messages.Reason {
	reply := make(chan messages.Reason, 1)
	h.mailbox <- messages.StoreSession{Session: s, Reply: reply}
	return <-reply
}

func (h *harness) load() messages.LoadedSession {
	reply := make(chan messages.LoadedSession, 1)
	h.mailbox <- messages.LoadSession{Reply: reply}
	return <-reply
}

// said drains box and returns its messages as text.
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

const beat = time.Minute

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
