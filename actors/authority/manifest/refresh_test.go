package manifest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"companion/adapters/authority/tuf"
	"companion/messages"
)

// M1: a 401 asks the session for a new token, once per refresh. If the hub refuses that too, refreshing goes on
// with backoff, for as long as it takes, and what serves is not affected.
func TestRefusedToken(t *testing.T) {
	for name, c := range map[string]struct {
		renewed string
		works   bool
	}{
		"a new token is accepted":  {"new-token", true},
		"the session has no other": {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, "", func(t *testing.T, h *house) {
				h.start(t)
				h.wantWants(t, "main+llama fetch")
				h.mu.Lock()
				h.renewed = c.renewed
				h.mu.Unlock()
				h.repo.change(func(r *repository) { r.refuse = "access-token" })
				time.Sleep(70 * time.Minute)
				if h.refusals() == 0 {
					t.Fatal("the session was not asked for a new token")
				}
				if got := h.view.Get().Reason; (got == messages.ReasonOK) != c.works {
					t.Fatalf("the view says %s", got)
				}
				before, asked := h.repo.count(), h.refusals()
				time.Sleep(time.Hour)
				refreshes, asked := h.repo.count()-before, h.refusals()-asked
				if refreshes == 0 || refreshes > 40 || !c.works && 2*asked != refreshes {
					t.Fatalf("%d refreshes and %d new tokens in the next hour", refreshes, asked)
				}
				h.repo.change(func(r *repository) { r.refuse = ""; r.fresh.Expires = time.Now().Add(1000 * time.Hour) })
				time.Sleep(97 * time.Hour)
				h.wantWants(t, repeat(h, "main+llama fetch")...)
				if lost := h.losses(); lost != nil {
					t.Fatalf("lost %v, want nothing", lost)
				}
				if v := h.view.Get(); v.Reason != messages.ReasonOK || !v.RetryAt.IsZero() {
					t.Fatalf("the view says %+v, want ok", v)
				}
			})
		})
	}
}

// refusals counts the requests for a new token.
func (h *house) refusals() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}

// wantsWaiting counts the Wants that wait for provision.
func (h *house) wantsWaiting() (n int) {
	for range len(h.provision) {
		m := <-h.provision
		if _, ok := m.(messages.Want); ok {
			n++
		}
		h.provision <- m
	}
	return n
}

// repeat returns text once per Want that waits for provision.
func repeat(h *house, text string) (all []string) {
	synctest.Wait()
	for range h.wantsWaiting() {
		all = append(all, text)
	}
	return all
}

// M1: the view says why the last refresh failed and when the next one is, and Retry-After is honoured.
func TestRefreshTrouble(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *house) {
		h.repo.freshErr = &tuf.Error{Reason: messages.ReasonManifestUnreachable, RetryAfter: 45 * time.Minute}
		h.start(t)
		v := h.view.Get()
		if v.Reason != messages.ReasonManifestUnreachable || !v.RetryAt.Equal(time.Now().Add(45*time.Minute)) {
			t.Fatalf("the view says %+v, want manifest_unreachable and 45 minutes", v)
		}
		time.Sleep(44 * time.Minute)
		if n := h.repo.count(); n != 1 {
			t.Fatalf("%d refreshes before Retry-After has passed", n)
		}
		time.Sleep(2 * time.Minute)
		if n := h.repo.count(); n != 2 {
			t.Fatalf("%d refreshes, want the second", n)
		}
	})
}

// M1: expiry, grace and refresh follow the wall clock: after sleep or a jump of the clock they are at most a
// minute late.
func TestWallClock(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *house) {
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
			t.Error("no refresh within a minute after two hours of sleep")
		}
		jump(23 * time.Hour)
		h.wantWants(t, "main+llama manifest_expired")
		if !h.view.Get().Grace {
			t.Errorf("the view says %+v, want grace", h.view.Get())
		}
		jump(72 * time.Hour)
		h.wantWants(t, "+ manifest_expired")
		if lost := h.losses(); fmt.Sprint(lost) != "[manifest_expired]" {
			t.Errorf("lost %v, want manifest_expired", lost)
		}
		jump(-96 * time.Hour)
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := h.wants(); fmt.Sprint(got) != "[]" && fmt.Sprint(got) != "[main+llama manifest_unreachable]" {
			t.Errorf("after the clock was set back: %q", got)
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

// M13: the last known good pair goes with every Want, from the first one on. Where no manifest is kept it goes
// alone, until its own metadata and the grace period are over.
func TestLastGoodGoesWithWant(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *house) {
		h.signed(false)
		h.repo.good = pair("old", time.Now().Add(time.Hour))
		h.repo.kept, h.repo.keptErr = h.repo.fresh, nil
		h.start(t)
		h.wantWants(t, "main+llama good:old+r manifest_unreachable", "main+llama good:old+r reauth")
	})
	bubble(t, "", func(t *testing.T, h *house) {
		h.signed(false)
		h.repo.good = pair("old", time.Now().Add(time.Hour))
		h.start(t)
		h.wantWants(t, "+ good:old+r manifest_unreachable", "+ good:old+r reauth")
		time.Sleep(72 * time.Hour)
		h.wantWants(t)
		time.Sleep(2 * time.Hour)
		h.wantWants(t, "+ reauth")
	})
}

// M1, M13: no pair is offered once the manifest has expired beyond grace, or no longer contains the model. An entry
// that cannot be used takes nothing away.
func TestLastGoodAndWithdrawal(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *house) {
		h.repo.good = pair("old", time.Now().Add(1000*time.Hour))
		h.start(t)
		h.wantWants(t, "+ good:old+r manifest_unreachable", "main+llama good:old+r fetch")
		h.repo.change(func(r *repository) { r.freshErr = errors.New("x") })
		time.Sleep(97 * time.Hour)
		h.wantWants(t, "main+llama good:old+r manifest_expired", "+ manifest_expired")
	})
	bubble(t, "absent", func(t *testing.T, h *house) {
		h.repo.good = pair("old", time.Now().Add(1000*time.Hour))
		h.start(t)
		h.wantWants(t, "+ good:old+r manifest_unreachable", "+ no_such_target")
	})
}

// M13: a pair that became ready is recorded.
func TestPairReadyIsRecorded(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *house) {
		h.start(t)
		h.mailbox <- messages.PairReady{Model: [32]byte{7}, Runtime: [32]byte{8}}
		synctest.Wait()
		if got := h.repo.remember; len(got) != 1 || got[0] != [2][32]byte{{7}, {8}} {
			t.Fatalf("recorded %v", got)
		}
	})
}

// M15: after each refresh, and for a command, provision is told everything that must stay: what the manifest offers
// and the last known good pair.
func TestPrune(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *house) {
		h.repo.good = pair("old", time.Now().Add(1000*time.Hour))
		h.start(t)
		h.wants()
		offered := len(h.repo.fresh.Digests())
		if len(h.prunes) != 1 || len(h.prunes[0].Keep) != offered+2 || h.prunes[0].DryRun || h.prunes[0].Reply != nil {
			t.Fatalf("after a refresh: got %+v, want one regular clean-up that keeps %d artifacts and the pair", h.prunes, offered)
		}
		for _, digest := range [][32]byte{{1}, {2}} {
			if !slices.Contains(h.prunes[0].Keep, digest) {
				t.Errorf("the last known good pair is not kept: %v", h.prunes[0].Keep)
			}
		}
		h.repo.change(func(r *repository) { r.freshErr = &tuf.Error{Reason: messages.ReasonManifestUnreachable} })
		time.Sleep(3 * time.Hour)
		if h.wants(); len(h.prunes) != 1 {
			t.Fatalf("after failed refreshes: %d clean-ups, want none more", len(h.prunes)-1)
		}
		reply := make(chan messages.PruneResult, 1)
		h.mailbox <- messages.PruneUnused{DryRun: true, Reply: reply}
		if h.wants(); len(h.prunes) != 2 || !h.prunes[1].DryRun || h.prunes[1].Reply == nil || len(h.prunes[1].Keep) != offered+2 {
			t.Fatalf("for a command: got %+v", h.prunes[1:])
		}
	})
	bubble(t, "", func(t *testing.T, h *house) {
		h.repo.freshErr = &tuf.Error{Reason: messages.ReasonManifestUntrusted}
		h.start(t)
		reply := make(chan messages.PruneResult, 1)
		h.mailbox <- messages.PruneUnused{Reply: reply}
		if got := <-reply; got.Reason != messages.ReasonManifestUntrusted {
			t.Fatalf("without a manifest: got %+v, want manifest_untrusted", got)
		}
	})
}
