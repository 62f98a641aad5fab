package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"companion/adapters/authority/tuf"
	"companion/messages"
)

// M1: after a 401 the actor asks the session for a new token, once per refresh. If the hub refuses that token too,
// refreshes go on with backoff without limit, and serving is not affected.
func TestRefusedToken(t *testing.T) {
	for name, c := range map[string]struct {
		renewed string
		works   bool
	}{
		"a new token is accepted":  {"new-token", true},
		"the session has no other": {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, "", func(t *testing.T, h *harness) {
				h.start(t)
				h.wantWants(t, "main+llama fetch")
				h.mu.Lock()
				h.renewed = c.renewed
				h.mu.Unlock()
				h.repo.change(func(r *repository) { r.refuse = "access-token" })
				time.Sleep(70 * time.Minute)
				if h.refusals() == 0 {
					t.Fatal("got no request for a new token, want at least one")
				}
				if got := h.view.Get().Reason; (got == messages.ReasonOK) != c.works {
					t.Fatalf("view: got %s, want ok: %t", got, c.works)
				}
				before, asked := h.repo.count(), h.refusals()
				time.Sleep(time.Hour)
				refreshes, asked := h.repo.count()-before, h.refusals()-asked
				if refreshes == 0 || refreshes > 40 || !c.works && 2*asked != refreshes {
					t.Fatalf("got %d refreshes and %d new tokens in the next hour, want 1 to 40 refreshes, and two per token if the hub refuses every token", refreshes, asked)
				}
				h.repo.change(func(r *repository) { r.refuse = ""; r.fresh.Expires = time.Now().Add(1000 * time.Hour) })
				time.Sleep(97 * time.Hour)
				h.wantWants(t, repeat(h, "main+llama fetch")...)
				if lost := h.losses(); lost != nil {
					t.Fatalf("lost: got %v, want none", lost)
				}
				if v := h.view.Get(); v.Reason != messages.ReasonOK || !v.RetryAt.IsZero() {
					t.Fatalf("view: got %+v, want ok and no retry time", v)
				}
			})
		})
	}
}

// refusals returns the number of requests for a new token.
func (h *harness) refusals() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}

// wantsWaiting returns the number of Wants in the mailbox of provision.
func (h *harness) wantsWaiting() (n int) {
	for range len(h.provision) {
		m := <-h.provision
		if _, ok := m.(messages.Want); ok {
			n++
		}
		h.provision <- m
	}
	return n
}

// repeat returns text once per Want in the mailbox of provision.
func repeat(h *harness, text string) (all []string) {
	synctest.Wait()
	for range h.wantsWaiting() {
		all = append(all, text)
	}
	return all
}

// M1: the view says why the last refresh failed and when the next one runs. Retry-After is honoured.
func TestRefreshTrouble(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *harness) {
		h.repo.freshErr = &tuf.Error{Reason: messages.ReasonManifestUnreachable, RetryAfter: 45 * time.Minute}
		h.start(t)
		v := h.view.Get()
		if v.Reason != messages.ReasonManifestUnreachable || !v.RetryAt.Equal(time.Now().Add(45*time.Minute)) {
			t.Fatalf("view: got %+v, want manifest_unreachable and a retry in 45 minutes", v)
		}
		time.Sleep(44 * time.Minute)
		if n := h.repo.count(); n != 1 {
			t.Fatalf("before Retry-After has passed: got %d refreshes, want 1", n)
		}
		time.Sleep(2 * time.Minute)
		if n := h.repo.count(); n != 2 {
			t.Fatalf("after Retry-After: got %d refreshes, want 2", n)
		}
	})
}

// M1: expiry, grace and refresh follow the wall clock: after sleep or a clock change they are at most one minute late.
func TestWallClock(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *harness) {
		h.start(t)
		h.wantWants(t, "main+llama fetch")
		asked := h.repo.count()
		h.repo.change(func(r *repository) { r.freshErr = &tuf.Error{Reason: messages.ReasonManifestUnreachable} })
		jump := func(d time.Duration) {
			h.mu.Lock()
			h.jump += d
			h.mu.Unlock()
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		jump(2 * time.Hour)
		if h.repo.count() == asked {
			t.Error("after two hours of sleep: got no refresh within a minute, want one")
		}
		jump(23 * time.Hour)
		h.wantWants(t, "main+llama manifest_expired")
		if !h.view.Get().Grace {
			t.Errorf("view: got %+v, want grace", h.view.Get())
		}
		jump(72 * time.Hour)
		h.wantWants(t, "+ manifest_expired")
		if lost := h.losses(); fmt.Sprint(lost) != "[manifest_expired]" {
			t.Errorf("lost: got %v, want [manifest_expired]", lost)
		}
		jump(-96 * time.Hour)
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := h.wants(); fmt.Sprint(got) != "[]" && fmt.Sprint(got) != "[main+llama manifest_unreachable]" {
			t.Errorf("after the clock was set back: got %q, want nothing new to fetch", got)
		}
	})
}

func pair(name string, expires time.Time) tuf.Pair {
	return tuf.Pair{
		Model:   messages.Artifact{Name: name, Kind: messages.KindModel, SHA256: [32]byte{1}},
		Runtime: messages.Artifact{Name: "r", Kind: messages.KindRuntime, SHA256: [32]byte{2}},
		Expires: expires,
	}
}

// M13: every Want contains the last known good pair, also the first one. Without a stored manifest the Want contains only
// that pair, until its metadata has expired and the grace period is over (M1).
func TestLastGoodGoesWithWant(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *harness) {
		h.signed(false)
		h.repo.good = pair("old", time.Now().Add(time.Hour))
		h.repo.kept, h.repo.keptErr = h.repo.fresh, nil
		h.start(t)
		h.wantWants(t, "main+llama good:old+r manifest_unreachable", "main+llama good:old+r reauth")
	})
	bubble(t, "", func(t *testing.T, h *harness) {
		h.signed(false)
		h.repo.good = pair("old", time.Now().Add(time.Hour))
		h.start(t)
		h.wantWants(t, "+ good:old+r manifest_unreachable", "+ good:old+r reauth")
		time.Sleep(72 * time.Hour)
		h.wantWants(t)
		time.Sleep(2 * time.Hour)
		h.wantWants(t, "+ manifest_expired")
		if lost := h.losses(); fmt.Sprint(lost) != "[manifest_expired]" {
			t.Errorf("lost: got %v, want [manifest_expired], so that the pair ends", lost)
		}
	})
}

// M1, M13: no pair is offered after the manifest's grace period, or if the manifest does not contain the model. An
// unusable entry of the manifest withdraws nothing.
func TestLastGoodAndWithdrawal(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *harness) {
		h.repo.good = pair("old", time.Now().Add(1000*time.Hour))
		h.start(t)
		h.wantWants(t, "+ good:old+r manifest_unreachable", "main+llama good:old+r fetch")
		h.repo.change(func(r *repository) { r.freshErr = errors.New("x") })
		time.Sleep(97 * time.Hour)
		h.wantWants(t, "main+llama good:old+r manifest_expired", "+ manifest_expired")
	})
	bubble(t, "absent", func(t *testing.T, h *harness) {
		h.repo.good = pair("old", time.Now().Add(1000*time.Hour))
		h.start(t)
		h.wantWants(t, "+ good:old+r manifest_unreachable", "+ no_such_target")
	})
}

// M13: a pair that became ready is recorded.
func TestPairReadyIsRecorded(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *harness) {
		h.start(t)
		h.mailbox <- messages.PairReady{Model: [32]byte{7}, Runtime: [32]byte{8}}
		synctest.Wait()
		if got := h.repo.remember; len(got) != 1 || got[0] != [2][32]byte{{7}, {8}} {
			t.Fatalf("recorded: got %v, want the one pair that became ready", got)
		}
	})
}

// M15: after each refresh, and for a command, provision gets the digests of all that must stay on disk: what the manifest
// offers and the last known good pair.
func TestPrune(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *harness) {
		h.repo.good = pair("old", time.Now().Add(1000*time.Hour))
		h.start(t)
		h.wants()
		offered := len(h.repo.fresh.Digests())
		if len(h.prunes) != 1 || len(h.prunes[0].Keep) != offered+2 || h.prunes[0].DryRun || h.prunes[0].Reply != nil {
			t.Fatalf("after a refresh: got %+v, want one regular clean-up that keeps %d artifacts and the pair", h.prunes, offered)
		}
		for _, digest := range [][32]byte{{1}, {2}} {
			if !slices.Contains(h.prunes[0].Keep, digest) {
				t.Errorf("got %v, want the last known good pair among the digests to keep", h.prunes[0].Keep)
			}
		}
		h.repo.change(func(r *repository) { r.freshErr = &tuf.Error{Reason: messages.ReasonManifestUnreachable} })
		time.Sleep(3 * time.Hour)
		if h.wants(); len(h.prunes) != 1 {
			t.Fatalf("after failed refreshes: got %d more clean-ups, want none", len(h.prunes)-1)
		}
		reply := make(chan messages.PruneResult, 1)
		h.mailbox <- messages.PruneUnused{DryRun: true, Reply: reply}
		if h.wants(); len(h.prunes) != 2 || !h.prunes[1].DryRun || h.prunes[1].Reply == nil || len(h.prunes[1].Keep) != offered+2 {
			t.Fatalf("for a command: got %+v, want one dry run with a reply that keeps %d digests", h.prunes[1:], offered+2)
		}
	})
	bubble(t, "", func(t *testing.T, h *harness) {
		h.repo.freshErr = &tuf.Error{Reason: messages.ReasonManifestUntrusted}
		h.start(t)
		reply := make(chan messages.PruneResult, 1)
		h.mailbox <- messages.PruneUnused{Reply: reply}
		if got := <-reply; got.Reason != messages.ReasonManifestUntrusted {
			t.Fatalf("without a manifest: got %+v, want manifest_untrusted", got)
		}
	})
}

// M1, M13: when a wall clock that was years ahead for two minutes is right again, the stored manifest is offered
// within a minute, and the next refresh happens within its interval.
func TestClockPutRight(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *harness) {
		h.start(t)
		jump := func(d time.Duration) {
			h.mu.Lock()
			h.jump += d
			h.mu.Unlock()
			time.Sleep(2 * time.Minute)
			synctest.Wait()
		}
		h.repo.change(func(r *repository) { r.freshErr = &tuf.Error{Reason: messages.ReasonManifestUnreachable} })
		jump(10_000 * time.Hour)
		if got := h.view.Get().Reason; got != messages.ReasonManifestExpired {
			t.Fatalf("ahead: got %s, want %s", got, messages.ReasonManifestExpired)
		}
		h.wants()
		h.repo.change(func(r *repository) { r.freshErr = nil })
		jump(-10_000 * time.Hour)
		before := h.repo.count()
		if all := h.wants(); len(all) == 0 || strings.HasPrefix(all[0], "+") {
			t.Errorf("clock corrected: got %q, want the model again", all)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if got, reason := h.repo.count()-before, h.view.Get().Reason; got == 0 || reason != messages.ReasonOK {
			t.Errorf("two hours later: got %d refreshes, %s, want some, and ok", got, reason)
		}
	})
}
