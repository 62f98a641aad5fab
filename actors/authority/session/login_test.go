package session

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"companion/adapters/authority/oauth"
	"companion/messages"
)

// O2, O9, X2: login, whoami, logout.
func TestLoginAndLogout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.start(t)
		h.wantView(t, messages.SessionSignedOut, messages.ReasonSignInNeeded)
		wantToken(t, h.token(), "", messages.ReasonSignInNeeded)
		page, done, cancel := h.login()
		defer cancel()
		if got, want := <-page, (&fakeAttempt{}).Page(); got != want {
			t.Fatalf("page of the command line: got %+v, want %+v", got, want)
		}
		h.hub.callback <- nil
		if r := <-done; r.Reason != messages.ReasonOK || r.User.Name != "Ada" {
			t.Fatalf("login: got %+v, want ok and Ada", r)
		}
		h.wantView(t, messages.SessionSignedIn, messages.ReasonOK)
		if !h.stored().Found || len(h.hub.closed) != 1 || !h.hub.closed[0] {
			t.Fatalf("after login: got session %+v, attempts closed %v; want a stored session and [true]", h.stored(), h.hub.closed)
		}
		reply := make(chan messages.WhoAmIResult, 1)
		h.commands <- messages.WhoAmI{Reply: reply}
		if r := <-reply; r.Reason != messages.ReasonOK || r.User.Name != "Ada" {
			t.Fatalf("whoami: got %+v, want ok and Ada", r)
		}
		if r := h.logout(); r != messages.ReasonOK {
			t.Fatalf("got %v, want %v", r, messages.ReasonOK)
		}
		h.wantView(t, messages.SessionSignedOut, messages.ReasonSignInNeeded)
		if h.stored().Found || fmt.Sprint(h.hub.revoked) != "[refresh-1]" {
			t.Fatalf("after logout: got session %+v, revoked %v; want no session and [refresh-1]", h.stored(), h.hub.revoked)
		}
		wantToken(t, h.token(), "", messages.ReasonSignInNeeded)
	})
}

// O2: a failed sign-in answers with its reason, closes its attempt and stores nothing.
func TestLoginFails(t *testing.T) {
	type run struct {
		h      *harness
		cancel context.CancelFunc
	}
	rows := map[string]struct {
		act  func(r run)
		want messages.LoginResult
	}{
		"the server says no": {act: func(r run) {
			r.h.hub.callback <- &oauth.Error{Reason: messages.ReasonAuthorizationServerError, Detail: "access_denied"}
		}, want: messages.LoginResult{Reason: messages.ReasonAuthorizationServerError, Detail: "access_denied"}},
		"no callback":          {act: func(run) { time.Sleep(3 * time.Minute) }, want: messages.LoginResult{Reason: messages.ReasonCallbackTimeout}},
		"cancelled":            {act: func(r run) { r.cancel() }, want: messages.LoginResult{Reason: messages.ReasonCallbackTimeout}},
		"replaced":             {act: func(r run) { r.h.login() }, want: messages.LoginResult{Reason: messages.ReasonSignInReplaced}},
		"signed out meanwhile": {act: func(r run) { r.h.logout() }, want: messages.LoginResult{Reason: messages.ReasonSignInReplaced}},
		"the keychain is locked": {act: func(r run) {
			r.h.breakCustody(messages.ReasonKeychainLocked)
			r.h.hub.callback <- nil
		}, want: messages.LoginResult{Reason: messages.ReasonKeychainLocked}},
	}
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t)
				h.start(t)
				page, done, cancel := h.login()
				defer cancel()
				<-page
				r.act(run{h, cancel})
				if got := <-done; got != r.want {
					t.Fatalf("got %+v, want %+v", got, r.want)
				}
				synctest.Wait()
				ok := r.want.Reason == messages.ReasonOK
				if h.hub.closed[0] != ok || h.stored().Found != ok {
					t.Fatalf("got closed %v, stored %v; want both %v", h.hub.closed, h.stored().Found, ok)
				}
				if name == "the keychain is locked" && len(h.hub.revoked) != 1 {
					t.Fatalf("got %v revoked, want the tokens that could not be stored", h.hub.revoked)
				}
			})
		})
	}
}

// O9: a sign-out that arrives when the browser has finished, but before the session is stored, ends that sign-in.
func TestLogoutWhenTheLoginIsNearlyDone(t *testing.T) {
	for range 20 { // the loop takes the two messages in any order
		synctest.Test(t, func(t *testing.T) {
			h := newHarness(t)
			h.start(t)
			page, done, cancel := h.login()
			defer cancel()
			<-page
			pause := make(chan struct{})
			h.change(func(f *fakeHub) { f.pause = pause })
			h.tokens <- messages.AccessTokenRequest{Reply: make(chan messages.AccessToken, 1)} // holds the loop
			synctest.Wait()
			h.hub.callback <- nil
			synctest.Wait()
			reply := make(chan messages.LogoutResult, 1)
			h.commands <- messages.Logout{Reply: reply}
			close(pause)
			<-reply
			<-done
			synctest.Wait()
			if got := fmt.Sprint(h.revoked()); h.stored().Found || got != "[refresh-1]" {
				t.Fatalf("got session stored %v, revoked %s; want false, [refresh-1]", h.stored().Found, got)
			}
			h.wantView(t, messages.SessionSignedOut, messages.ReasonSignInNeeded)
		})
	}
}

// O8: a refresh that is running does not overwrite a sign-in.
func TestLoginDuringRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(0)
		h.hub.took = time.Minute
		h.start(t)
		go h.token()
		synctest.Wait()
		page, done, cancel := h.login()
		defer cancel()
		<-page
		h.hub.callback <- nil
		if r := <-done; r.Reason != messages.ReasonOK {
			t.Fatalf("signing in: got %+v, want ok", r)
		}
		synctest.Wait()
		if got := h.stored().Session; got.RefreshToken.Reveal() != "refresh-2" && got.RefreshToken.Reveal() != "refresh-3" || h.hub.reused != 0 {
			t.Fatalf("stored: got %+v after %d reuses, want refresh-2 or refresh-3 and no reuse", got, h.hub.reused)
		}
		if got := h.stored().Session; got.Meta.User.Subject != "s" { // the earlier session has no subject
			t.Fatalf("got %+v stored, want the session of the sign-in", got.Meta)
		}
		h.wantView(t, messages.SessionSignedIn, messages.ReasonOK)
	})
}

// An access token that the hub refuses before its expiry counts as expired.
func TestRefusedToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.signedIn(time.Hour)
		h.hub.whoAmI = func(access string) (messages.User, error) {
			if access == "access-1" {
				return messages.User{}, &oauth.Error{Reason: messages.ReasonSignInNeeded}
			}
			return messages.User{Name: "Ada"}, nil
		}
		h.start(t)
		ask := func() messages.WhoAmIResult {
			reply := make(chan messages.WhoAmIResult, 1)
			h.commands <- messages.WhoAmI{Reply: reply}
			return <-reply
		}
		if r := ask(); r.Reason != messages.ReasonSignInNeeded {
			t.Fatalf("first whoami: got %+v, want reauth", r)
		}
		if r := ask(); r.Reason != messages.ReasonOK || r.User.Name != "Ada" {
			t.Fatalf("second whoami: got %+v, want ok and Ada", r)
		}
	})
}
