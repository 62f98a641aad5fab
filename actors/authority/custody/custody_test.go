package custody

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"companion/adapters/authority/keychain"
	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// K6, A4, A9: the token is stored before it is used. A restart of the actor stores the same token; another start of the
// daemon makes another one.
func TestLoopbackToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness()
		h.start(t)
		want(t, said(h.lifecycle), started, storedMsg)
		want(t, said(h.frontDoor), useToken)
		token := h.keychain.item(keychain.LoopbackToken)
		if len(token) != 43 {
			t.Fatalf("got a token of %d characters, want 43", len(token))
		}
		broken := true // for one call
		h.keychain.set(func(string, keychain.Account) error {
			if !broken {
				return nil
			}
			broken = false
			panic("a broken keychain library")
		})
		reply := make(chan messages.LoadedSession, 1)
		h.mailbox <- messages.LoadSession{Reply: reply}
		if got := <-reply; got.Found || got.Reason != messages.ReasonKeychainTimeout {
			t.Fatalf("got %+v, want no session and keychain_timeout", got)
		}
		time.Sleep(2 * time.Second) // the supervisor's pause
		want(t, said(h.lifecycle), started, storedMsg)
		if h.keychain.item(keychain.LoopbackToken) != token {
			t.Fatal("after a restart: got another token, want the same")
		}
		if other := newHarness(); other.actor.token.Reveal() == token {
			t.Fatal("second start: got the same token, want another")
		}
	})
}

// K6: shutdown removes the token, at the front door too, and nothing stores it again.
func TestClearLoopbackToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness()
		h.start(t)
		said(h.frontDoor)
		reply := make(chan messages.Reason, 1)
		h.loopback <- messages.ClearLoopbackToken{Reply: reply}
		if r := <-reply; r != messages.ReasonOK {
			t.Fatalf("got %v, want %v", r, messages.ReasonOK)
		}
		h.loopback <- messages.DeliverLoopbackToken{}
		time.Sleep(time.Hour)
		want(t, said(h.frontDoor), dropToken)
		if h.keychain.item(keychain.LoopbackToken) != "" {
			t.Fatal("after clear: got a token in the keychain, want none")
		}
	})
}

// A9: a restarted front door gets the token again; a restarted lifecycle actor gets its state.
func TestConfirm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness()
		h.start(t)
		said(h.frontDoor)
		said(h.lifecycle)
		h.loopback <- messages.DeliverLoopbackToken{}
		h.loopback <- messages.ConfirmCustody{}
		want(t, said(h.frontDoor), useToken)
		want(t, said(h.lifecycle), storedMsg)
	})
}

// K3, K7: while the keychain is locked, the token is lost with that reason; custody tries again and uses no other store.
func TestLockedThenUnlocked(t *testing.T) {
	for _, reason := range []messages.Reason{messages.ReasonKeychainLocked, messages.ReasonKeychainDenied, messages.ReasonKeychainTimeout} {
		synctest.Test(t, func(t *testing.T) {
			h := newHarness()
			h.keychain.set(failing(reason))
			h.start(t)
			lost := "messages.TokenLost{Reason:" + string(reason) + "}"
			want(t, said(h.lifecycle), started, lost)
			h.loopback <- messages.DeliverLoopbackToken{}
			h.loopback <- messages.ConfirmCustody{}
			want(t, said(h.lifecycle), lost)
			want(t, said(h.frontDoor))
			if len(h.fatal) != 0 {
				t.Fatalf("got %d calls of Fatal, want none", len(h.fatal))
			}
			h.keychain.set(nil)
			time.Sleep(10 * time.Second)
			want(t, said(h.lifecycle), storedMsg)
			want(t, said(h.frontDoor), useToken)
		})
	}
}

// A5, A4: a token that was deleted or overwritten in the keychain is reported lost at the next beat, or at once when the
// lifecycle actor asks. It is stored again, and only then reported as stored.
func TestTokenGone(t *testing.T) {
	for name, row := range map[string]struct {
		change func(k *fakeKeychain)
		reason messages.Reason
	}{
		"deleted":     {func(k *fakeKeychain) { delete(k.items, keychain.LoopbackToken) }, messages.ReasonMissingToken},
		"overwritten": {func(k *fakeKeychain) { k.items[keychain.LoopbackToken] = "another" }, messages.ReasonInvalidToken},
	} {
		for _, asked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, asked %v", name, asked), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHarness()
					h.start(t)
					said(h.lifecycle)
					said(h.frontDoor)
					token := h.keychain.item(keychain.LoopbackToken)
					h.keychain.change(row.change)
					want(t, said(h.lifecycle))
					if asked {
						h.loopback <- messages.ConfirmCustody{}
					} else {
						time.Sleep(beat)
					}
					want(t, said(h.lifecycle), "messages.TokenLost{Reason:"+string(row.reason)+"}", storedMsg)
					want(t, said(h.frontDoor), useToken)
					if h.keychain.item(keychain.LoopbackToken) != token {
						t.Fatalf("got %q in the keychain, want the token stored again", h.keychain.item(keychain.LoopbackToken))
					}
					time.Sleep(time.Hour)
					want(t, said(h.lifecycle)) // no change, so no message
				})
			})
		}
	}
}

// K3, K7, A5: a stored token is lost while it cannot be read. Nothing is deleted, and only the first call may raise a
// dialog.
func TestTokenUnreadable(t *testing.T) {
	for _, reason := range []messages.Reason{
		messages.ReasonKeychainLocked, messages.ReasonKeychainDenied, messages.ReasonKeychainTimeout, messages.ReasonKeychainUnavailable,
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHarness()
			h.start(t)
			said(h.lifecycle)
			token := h.keychain.item(keychain.LoopbackToken)
			h.keychain.set(failing(reason))
			h.loopback <- messages.ConfirmCustody{}
			lost := "messages.TokenLost{Reason:" + string(reason) + "}"
			want(t, said(h.lifecycle), lost)
			time.Sleep(time.Hour)
			for _, m := range said(h.lifecycle) {
				if m != lost {
					t.Fatalf("got %v, want %v", m, lost)
				}
			}
			if h.keychain.item(keychain.LoopbackToken) != token || len(h.fatal) != 0 {
				t.Fatalf("got token %q and %d calls of Fatal, want the token kept and none", h.keychain.item(keychain.LoopbackToken), len(h.fatal))
			}
			h.keychain.set(nil)
			time.Sleep(3 * time.Minute)
			if all := said(h.lifecycle); len(all) == 0 || all[len(all)-1] != storedMsg {
				t.Fatal(all)
			}
			for i, call := range h.keychain.calls() {
				if loud := !strings.HasPrefix(call, "quiet "); loud != (i == 0) {
					t.Fatalf("call %d is %q, want the prompt only in the first", i, call)
				}
			}
		})
	}
}

// K3: without a keychain service Fatal is called once.
func TestNoService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness()
		h.keychain.set(failing(messages.ReasonKeychainUnavailable))
		h.start(t)
		time.Sleep(time.Hour)
		if len(h.fatal) != 1 || <-h.fatal != messages.ReasonKeychainUnavailable {
			t.Fatal("Fatal: got another number of calls or another reason, want one call with keychain_unavailable")
		}
		want(t, said(h.frontDoor))
	})
}

// K7: while a keychain call hangs, the actor still answers, and shutdown does not wait for the call.
func TestHungKeychain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness()
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
		if n := len(replies); n != 5 { // the store of the token is the first of maxJobs
			t.Fatalf("got %d replies while the keychain hangs, want 5", n)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want %v", err, context.Canceled)
		}
		synctest.Wait()
		if n := len(replies); n != maxJobs+4 {
			t.Fatalf("got %d replies after the end, want %d", n, maxJobs+4)
		}
	})
}

// K7: a locked keychain raises at most one dialog in the first hour, however often the session is loaded. Each user action
// may raise one more.
func TestOneDialogPerAction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness()
		h.keychain.set(failing(messages.ReasonKeychainLocked))
		h.start(t)
		asking := func() (n int) {
			for _, call := range h.keychain.calls() {
				if !strings.HasPrefix(call, "quiet ") {
					n++
				}
			}
			return n
		}
		for range 60 {
			h.load()
			h.store(testSession(1))
			time.Sleep(time.Minute)
		}
		if n := asking(); n != 1 {
			t.Errorf("got %d calls in the first hour that may raise a dialog, want 1", n)
		}
		reply := make(chan messages.LoadedSession, 1)
		h.mailbox <- messages.LoadSession{Ask: true, Reply: reply}
		<-reply
		if n := asking(); n != 2 {
			t.Errorf("after a user action: got %d calls that may raise a dialog, want 2", n)
		}
		panics := true // for one call
		h.keychain.set(func(string, keychain.Account) error {
			if panics {
				panics = false
				panic("a broken keychain library")
			}
			return nil
		})
		h.load()
		time.Sleep(5 * time.Second) // the supervisor's pause
		if n := asking(); n != 2 {
			t.Errorf("after a restart of the actor: got %d calls that may raise a dialog, want 2", n)
		}
	})
}

// K7: custody handles a signal of the keychain at once and passes it on. After unlock the token is stored; after lock it is
// reported lost.
func TestKeychainSignals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness()
		h.keychain.set(failing(messages.ReasonKeychainLocked))
		h.start(t)
		synctest.Wait()
		time.Sleep(time.Hour) // the backoff is at its slowest
		said(h.lifecycle)
		began := time.Now()
		h.keychain.set(nil)
		h.signal()
		want(t, said(h.lifecycle), storedMsg)
		h.keychain.set(failing(messages.ReasonKeychainLocked))
		h.signal()
		want(t, said(h.lifecycle), "messages.TokenLost{Reason:keychain_locked}")
		if took := time.Since(began); took != 0 {
			t.Errorf("got a store after %v, want 0s", took)
		}
		if n := h.changed.Get(); n != 2 {
			t.Errorf("got %d changes passed on, want 2", n)
		}
	})
}

// K6, K7: a keychain that hangs does not delay the shutdown.
func TestShutdownWhileKeychainHangs(t *testing.T) {
	for name, row := range map[string]struct {
		since time.Duration // how long it has hung
		most  time.Duration
	}{
		"since a moment ago": {0, clearWithin},
		"for a while":        {beat + time.Second, clearWithinHung},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness()
				h.start(t)
				synctest.Wait()
				h.keychain.change(func(k *fakeKeychain) { k.hang = true })
				time.Sleep(row.since)
				began := time.Now()
				reply := make(chan messages.Reason, 1)
				h.loopback <- messages.ClearLoopbackToken{Reply: reply}
				if r := <-reply; r != messages.ReasonKeychainTimeout {
					t.Errorf("got reply %s, want %s", r, messages.ReasonKeychainTimeout)
				}
				if took := time.Since(began); took > row.most {
					t.Errorf("got the reply after %v, want at most %v", took, row.most)
				}
			})
		})
	}
}

// Rule 2: nothing that custody says or logs shows a secret.
func TestLogsHoldNoSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness()
		h.keychain.set(failing(messages.ReasonKeychainLocked))
		h.start(t)
		synctest.Wait()
		h.keychain.set(nil)
		time.Sleep(time.Minute)
		if h.logs.Len() < 2 {
			t.Fatalf("got %d log entries, want at least 2", h.logs.Len())
		}
		text := fmt.Sprintf("%+v", h.logs.All()) + fmt.Sprint(said(h.frontDoor), said(h.lifecycle))
		if token := h.keychain.item(keychain.LoopbackToken); token == "" || strings.Contains(text, token) {
			t.Fatal("got the token in the log, or no token; want a token that is not logged")
		}
	})
}
