package manifest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"companion/adapters/authority/tuf"
	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// M1, M3: while signed in, the manifest is fetched with the token, and again every hour.
func TestRefresh(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *harness) {
		h.start(t)
		h.wantWants(t, "main+llama fetch")
		if v := h.view.Get(); v.Reason != messages.ReasonOK || v.Version != 2 || v.Grace {
			t.Fatalf("view: got %+v, want ok, version 2, no grace", v)
		}
		time.Sleep(12 * time.Hour)
		if n := h.repo.count(); n < 11 || n > 14 {
			t.Fatalf("got %d refreshes in twelve hours, want 11 to 14", n)
		}
		for _, token := range h.repo.tokens {
			if token != "access-token" {
				t.Fatalf("got a refresh with token %q, want access-token", token)
			}
		}
		if text := fmt.Sprintf("%+v", h.logs.All()); strings.Contains(text, "access-token") || strings.Contains(text, "https:") {
			t.Fatal("got a token or URL in the log, want neither")
		}
	})
}

// M1: while signed out, nothing is fetched and no request is sent; the verified manifest stays in use.
func TestSignedOut(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *harness) {
		h.signed(false)
		h.repo.kept, h.repo.keptErr = h.repo.fresh, nil
		h.start(t)
		h.wantWants(t, "main+llama manifest_unreachable", "main+llama reauth")
		if r := <-h.pull(""); r != messages.ReasonSignInNeeded {
			t.Fatalf("got %v, want %v", r, messages.ReasonSignInNeeded)
		}
		time.Sleep(5 * time.Hour)
		if h.repo.count() != 0 {
			t.Fatalf("got %d refreshes without a sign-in, want none", h.repo.count())
		}
		h.signed(true)
		h.mailbox <- messages.SessionChanged{}
		h.wantWants(t, "main+llama fetch")
		h.signed(false)
		h.mailbox <- messages.SessionChanged{}
		h.wantWants(t, "main+llama reauth")
		if v := h.view.Get(); v.Reason != messages.ReasonSignInNeeded || v.Version != 2 {
			t.Fatalf("view: got %+v, want reauth and version 2", v)
		}
	})
}

// M1, X3: without any manifest, provision gets the reason once, so that a start can be answered with it.
func TestNothingKept(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *harness) {
		h.signed(false)
		h.start(t)
		h.wantWants(t, "+ reauth")
		h.mailbox <- messages.SessionChanged{}
		h.wantWants(t)
		h.mailbox <- messages.RepeatWant{}
		h.wantWants(t, "+ reauth")
		h.signed(true)
		h.mailbox <- messages.SessionChanged{}
		h.wantWants(t, "main+llama fetch")
	})
}

// M1: without a network the stored manifest is used and allows no fetch. The refresh is retried with growing pauses.
// A failed refresh withdraws nothing that a fresh manifest has allowed.
func TestNoNetwork(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *harness) {
		h.repo.kept, h.repo.keptErr = h.repo.fresh, nil
		h.repo.freshErr = &tuf.Error{Reason: messages.ReasonManifestUnreachable}
		h.start(t)
		h.wantWants(t, "main+llama manifest_unreachable")
		time.Sleep(time.Hour)
		if n := h.repo.count(); n < 6 || n > 25 {
			t.Fatalf("got %d refreshes in an hour, want 6 to 25", n)
		}
		h.repo.change(func(r *repository) { r.freshErr = nil })
		time.Sleep(16 * time.Minute)
		h.wantWants(t, "main+llama fetch")
		h.repo.change(func(r *repository) { r.freshErr = &tuf.Error{Reason: messages.ReasonManifestUnreachable} })
		time.Sleep(2 * time.Hour)
		h.wantWants(t)
		if v := h.view.Get(); v.Reason != messages.ReasonManifestUnreachable {
			t.Fatalf("view: got %+v, want manifest_unreachable", v)
		}
	})
}

// M1: fetching ends when the manifest expires, inference ends after the grace period, and a new manifest allows both
// again.
func TestExpiryAndGrace(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *harness) {
		h.start(t)
		h.wantWants(t, "main+llama fetch")
		good := h.repo.fresh
		h.repo.change(func(r *repository) { r.freshErr = &tuf.Error{Reason: messages.ReasonManifestExpired} })
		time.Sleep(23 * time.Hour)
		h.wantWants(t)
		time.Sleep(2 * time.Hour)
		h.wantWants(t, "main+llama manifest_expired")
		if v := h.view.Get(); !v.Grace || v.Reason != messages.ReasonManifestExpired {
			t.Fatalf("view: got %+v, want grace and manifest_expired", v)
		}
		if r := <-h.pull(""); r != messages.ReasonManifestExpired {
			t.Fatalf("got %v, want %v", r, messages.ReasonManifestExpired)
		}
		if lost := h.losses(); lost != nil {
			t.Fatalf("got %v, want none", lost)
		}
		time.Sleep(72 * time.Hour)
		h.wantWants(t, "+ manifest_expired")
		if lost := h.losses(); len(lost) != 1 || lost[0] != messages.ReasonManifestExpired {
			t.Fatalf("lost: got %v, want [manifest_expired]", lost)
		}
		if v := h.view.Get(); v.Grace || v.Reason != messages.ReasonManifestExpired {
			t.Fatalf("view: got %+v, want manifest_expired without grace", v)
		}
		good.Expires = time.Now().Add(24 * time.Hour)
		h.repo.change(func(r *repository) { r.fresh, r.freshErr = good, nil })
		time.Sleep(16 * time.Minute)
		h.wantWants(t, "main+llama fetch")
	})
}

// M1, T6: an untrusted or rolled-back manifest changes nothing; the view has the reason.
func TestRefusedManifest(t *testing.T) {
	for _, reason := range []messages.Reason{messages.ReasonManifestUntrusted, messages.ReasonManifestRollback} {
		bubble(t, "", func(t *testing.T, h *harness) {
			h.repo.freshErr = &tuf.Error{Reason: reason}
			h.start(t)
			h.wantWants(t, "+ "+string(reason))
			if v := h.view.Get(); v.Reason != reason {
				t.Fatalf("view: got %+v, want %s", v, reason)
			}
			if r := <-h.pull(""); r != reason {
				t.Fatalf("got %v, want %v", r, reason)
			}
			reply := make(chan messages.ModelList, 1)
			h.mailbox <- messages.ListModels{Reply: reply}
			if list := <-reply; list.Reason != reason {
				t.Fatalf("models: got %+v, want %s", list, reason)
			}
		})
	}
}

// M2: a model that the manifest does not offer is reported lost, with the reason.
func TestUnknownModel(t *testing.T) {
	bubble(t, "absent", func(t *testing.T, h *harness) {
		h.start(t)
		h.wantWants(t, "+ no_such_target")
		if lost := h.losses(); len(lost) != 1 || lost[0] != messages.ReasonNoSuchTarget {
			t.Fatalf("lost: got %v, want [no_such_target]", lost)
		}
		if r := <-h.pull(""); r != messages.ReasonNoSuchTarget {
			t.Fatalf("got %v, want %v", r, messages.ReasonNoSuchTarget)
		}
	})
}

// pull fetches the wanted pair or one artifact by name, and refuses an unknown name. The reply is provision's.
func TestPull(t *testing.T) {
	bubble(t, "other", func(t *testing.T, h *harness) {
		h.start(t)
		h.wantWants(t, "other+llama fetch")
		fetched := func(reply chan messages.Reason, answers ...messages.Reason) (names []string, end messages.Reason) {
			t.Helper()
			for _, answer := range answers {
				for {
					if f, ok := (<-h.provision).(messages.Fetch); ok {
						names = append(names, f.Artifact.Name)
						f.Reply <- answer
						break
					}
				}
			}
			return names, <-reply
		}
		for _, r := range []struct {
			name    string
			answers []messages.Reason
			want    string
		}{
			{"", []messages.Reason{messages.ReasonOK, messages.ReasonOK}, "[llama other] ok"},
			{"", []messages.Reason{messages.ReasonDigestMismatch}, "[llama] digest_mismatch"},
			{"main", []messages.Reason{messages.ReasonOK}, "[main] ok"},
			{"llama", []messages.Reason{messages.ReasonNoSpace}, "[llama] no_space"},
			{"absent", nil, "[] no_such_target"},
		} {
			names, end := fetched(h.pull(r.name), r.answers...)
			if got := fmt.Sprint(names, " ", end); got != r.want {
				t.Fatalf("pull %q: got %s, want %s", r.name, got, r.want)
			}
		}
	})
}

// models lists what the manifest offers and which of it is on disk.
func TestListModels(t *testing.T) {
	bubble(t, "other", func(t *testing.T, h *harness) {
		h.start(t)
		h.wants()
		reply := make(chan messages.ModelList, 1)
		h.mailbox <- messages.ListModels{Reply: reply}
		m := (<-h.provision).(messages.Held)
		held := make([]messages.HeldArtifact, len(m.Artifacts))
		for i, a := range m.Artifacts {
			held[i] = messages.HeldArtifact{Name: a.Name, Here: a.Name == "main", Verified: a.Name == "main", PartialBytes: int64(i)}
		}
		m.Reply <- held
		got := fmt.Sprintf("%+v", (<-reply).Models)
		want := "[{Name:main Version:1 Size:1000 Default:true Selected:false Here:true Verified:true PartialBytes:0 LastGood:false Running:false Yours:false} " +
			"{Name:other Version:1 Size:1000 Default:false Selected:true Here:false Verified:false PartialBytes:1 LastGood:false Running:false Yours:false}]"
		if got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	})
}

// M13, M15: the list marks the model that became ready last. If the manifest no longer offers its version, it has its
// own row.
func TestListLastGood(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *harness) {
		h.repo.good = tuf.Pair{Model: messages.Artifact{Name: "main", Version: "0", Kind: messages.KindModel, SHA256: [32]byte{9}}}
		h.start(t)
		h.wants()
		reply := make(chan messages.ModelList, 1)
		h.mailbox <- messages.ListModels{Reply: reply}
		m := (<-h.provision).(messages.Held)
		m.Reply <- make([]messages.HeldArtifact, len(m.Artifacts))
		rows := (<-reply).Models
		if len(rows) != 3 || rows[2].Version != "0" || !rows[2].LastGood || rows[2].Selected || rows[0].LastGood {
			t.Fatalf("got %+v, want a third row for version 0 as last known good", rows)
		}
	})
}

// A9: a restarted provision actor gets the last Want again; a restarted lifecycle actor needs no message.
func TestRepeatWant(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *harness) {
		h.start(t)
		h.wants()
		h.mailbox <- messages.RepeatWant{}
		h.wantWants(t, "main+llama fetch")
	})
}

// A sign-in during a refresh causes no second refresh; a sign-out during a refresh ends fetching.
func TestSessionChangesDuringRefresh(t *testing.T) {
	for _, in := range []bool{true, false} {
		bubble(t, "", func(t *testing.T, h *harness) {
			h.repo.took = 10 * time.Second
			h.start(t)
			h.signed(in)
			h.mailbox <- messages.SessionChanged{}
			time.Sleep(time.Minute)
			if h.repo.count() != 1 {
				t.Fatalf("got %d refreshes, want 1", h.repo.count())
			}
			if in {
				h.wantWants(t, "main+llama fetch")
			} else {
				h.wantWants(t, "main+llama fetch", "main+llama reauth")
			}
		})
	}
}

// A hub that hangs delays only the requests that need it, and does not delay the shutdown.
func TestHungRepository(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *harness) {
		h.repo.took = time.Hour
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.actor.Serve(ctx) }()
		reply := make(chan messages.ModelList, 1)
		h.mailbox <- messages.ListModels{Reply: reply}
		if list := <-reply; list.Reason != messages.ReasonManifestUnreachable {
			t.Fatalf("models: got %+v, want manifest_unreachable", list)
		}
		if r := <-h.pull(""); r != messages.ReasonManifestUnreachable { // after refreshTimeout
			t.Fatalf("got %v, want %v", r, messages.ReasonManifestUnreachable)
		}
		waiting := h.pull("")
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want %v", err, context.Canceled)
		}
		if r := <-waiting; r != messages.ReasonManifestUnreachable {
			t.Fatalf("got %v, want %v", r, messages.ReasonManifestUnreachable)
		}
	})
}

// A panic is contained, and the actor restarts.
func TestPanicIsContained(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *harness) {
		h.repo.panics = true
		h.start(t)
		time.Sleep(5 * time.Second)
		h.wantWants(t, "main+llama fetch")
	})
}
