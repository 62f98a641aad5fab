package manifest

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"companion/adapters/authority/tuf"
	"companion/messages"
)

// owned returns a real catalogue of the user with these artifacts: "m" a model, "r" a runtime; an asterisk marks a default.
func owned(t *testing.T, names ...string) tuf.Catalogue {
	t.Helper()
	o := tuf.NewOwn(tuf.OwnConfig{Dir: filepath.Join(t.TempDir(), "own"), Platform: "linux/amd64"})
	for _, name := range names {
		bare := strings.TrimSuffix(name, "*")
		target := tuf.OwnTarget{Custom: messages.TargetCustom{Kind: messages.KindModel, Name: bare, Version: "1", Default: bare != name}, Size: 10}
		copy(target.SHA256[:], "own "+bare)
		if strings.HasPrefix(bare, "r") {
			target.Custom.Kind, target.Custom.Platform, target.Custom.Format, target.Custom.Executable = messages.KindRuntime, "linux/amd64", "zip", "llama-server"
			target.Custom.Files = []messages.TargetFile{{Path: "llama-server", SHA256: strings.Repeat("ab", 32), Size: 1, Executable: true}}
		}
		if err := o.Add(t.Context(), target); err != nil {
			t.Fatal(err)
		}
	}
	own, err := o.Load()
	if err != nil {
		t.Fatal(err)
	}
	return own
}

func ownDigest(name string) (digest [32]byte) {
	copy(digest[:], "own "+name)
	return digest
}

// M16: without a hub, what the user added is wanted; no session is asked, and nothing is refreshed.
func TestNoHub(t *testing.T) {
	for name, c := range map[string]struct {
		own   []string
		model string
		want  string
	}{
		"model and runtime":  {[]string{"m*", "r*"}, "", "m+r fetch"},
		"without defaults":   {[]string{"m", "r"}, "", "m+r fetch"},
		"the default of two": {[]string{"m", "n*", "r*"}, "", "n+r fetch"},
		"a configured name":  {[]string{"m", "n*", "r*"}, "m", "m+r fetch"},
		"another name":       {[]string{"m*", "r*"}, "x", "+ no_such_target"},
		"no runtime":         {[]string{"m*"}, "", "m+ no_hub"},
		"no model":           {[]string{"r*"}, "", "+ no_hub"},
		"nothing":            {nil, "", "+ no_hub"},
		"two and no default": {[]string{"m", "n", "r"}, "", "+ no_hub"},
	} {
		own := owned(t, c.own...)
		synctest.Test(t, func(t *testing.T) {
			h := newHarness(t, c.model, tuf.Catalogue{})
			h.actor.deps.NoHub = true
			h.signed(false)
			h.repo.own = own
			h.start(t)
			wants := h.wants()
			if len(wants) == 0 || wants[len(wants)-1] != c.want {
				t.Errorf("%s: got %q, want %q last", name, wants, c.want)
			}
			if v := h.view.Get(); v.Reason != messages.ReasonNoHub || v.Added != len(c.own) || !v.RetryAt.IsZero() {
				t.Errorf("%s: got the view %+v, want no_hub, %d added", name, v, len(c.own))
			}
			time.Sleep(3 * time.Hour)
			if n := h.repo.count(); n != 0 {
				t.Errorf("%s: got %d refreshes, want none", name, n)
			}
		})
	}
}

// M16: with a hub, a name of its manifest wins, its default wins over what is only added, and the user's default wins over its
// default.
func TestOwnBesideHub(t *testing.T) {
	hub := verified(t)
	for name, c := range map[string]struct {
		own   []string
		model string
		want  string
	}{
		"only added":          {[]string{"m", "r"}, "", "main+llama fetch"},
		"default":             {[]string{"m*", "r"}, "", "m+llama fetch"},
		"default runtime":     {[]string{"m", "r*"}, "", "main+r fetch"},
		"by name":             {[]string{"m", "r"}, "m", "m+llama fetch"},
		"the hub's name wins": {[]string{"other", "r*"}, "other", "other+r fetch"},
	} {
		own := owned(t, c.own...)
		synctest.Test(t, func(t *testing.T) {
			h := newHarness(t, c.model, hub)
			h.repo.own = own
			h.start(t)
			wants := h.wants()
			if len(wants) == 0 || wants[len(wants)-1] != c.want {
				t.Errorf("%s: got %q, want %q last", name, wants, c.want)
			}
		})
	}
}

// M16: what the user added is offered without a session while the hub asks for a sign-in, and after the hub's manifest and
// its grace period have expired. A pair with a part of the hub ends then (M1).
func TestOwnWithoutSession(t *testing.T) {
	hub, own, mixed, added := verified(t), owned(t, "m*", "r*"), owned(t, "m*"), owned(t, "m*", "r")
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, "", hub)
		h.signed(false)
		h.repo.own = own
		h.start(t)
		if wants := h.wants(); !slices.Contains(wants, "m+r fetch") {
			t.Errorf("got %q, want m+r although nobody is signed in", wants)
		}
	})
	mine, llama := ownDigest("m"), hubDigest(hub)
	for name, c := range map[string]struct {
		own      tuf.Catalogue
		unpinned bool
		runs     messages.PairReady
		last     string
		ends     bool
	}{
		"own pair":                  {own, false, messages.PairReady{Model: mine, Runtime: ownDigest("r")}, "m+r fetch", false},
		"own pair that never ran":   {own, false, messages.PairReady{}, "m+r fetch", false},
		"mixed pair":                {mixed, false, messages.PairReady{Model: mine, Runtime: llama}, "+ manifest_expired", true},
		"mixed pair, then own pair": {added, false, messages.PairReady{Model: mine, Runtime: llama}, "m+r fetch", true},
		"unpinned binary":           {mixed, true, messages.PairReady{Model: mine}, "m+ fetch", false},
	} {
		bubble(t, "", func(t *testing.T, h *harness) {
			h.repo.own = c.own
			h.actor.deps.Unpinned = c.unpinned
			h.start(t)
			if c.runs != (messages.PairReady{}) {
				h.mailbox <- c.runs
			}
			h.repo.change(func(r *repository) { r.freshErr = &tuf.Error{Reason: messages.ReasonManifestUnreachable} })
			time.Sleep(24*time.Hour + 71*time.Hour)
			if lost := h.losses(); len(lost) != 0 {
				t.Errorf("%s: in the grace period: got %v, want nothing lost", name, lost)
			}
			time.Sleep(2*time.Hour + 5*time.Minute)
			wants := h.wants()
			if len(wants) == 0 || wants[len(wants)-1] != c.last {
				t.Errorf("%s: got %q, want %q last", name, wants, c.last)
			}
			time.Sleep(time.Hour)
			if lost := h.losses(); (fmt.Sprint(lost) == "[manifest_expired]") != c.ends || len(lost) > 1 {
				t.Errorf("%s: got %v lost, want one manifest_expired: %t", name, lost, c.ends)
			}
			// A part of the hub that becomes ready only now ends too.
			h.mailbox <- messages.PairReady{Model: mine, Runtime: llama}
			if lost := h.losses(); (len(lost) > 0) == (c.unpinned || c.last == "+ manifest_expired") {
				t.Errorf("%s: a pair with the hub's runtime became ready: got %v lost, want it ended", name, lost)
			}
		})
	}
}

// M1, M13, M16: the runtime that the hub's manifest no longer names serves on with a model of the user, as the last known good
// one; without a stored manifest until the metadata that names it and its grace period have expired.
func TestOwnWithGoodOfHub(t *testing.T) {
	mixed := owned(t, "m*")
	good := func(expires time.Time) tuf.Pair {
		return tuf.Pair{
			Model:   messages.Artifact{Name: "m", Kind: messages.KindModel, SHA256: ownDigest("m"), Own: true},
			Runtime: messages.Artifact{Name: "old", Kind: messages.KindRuntime, SHA256: [32]byte{2}}, Expires: expires,
		}
	}
	bubble(t, "", func(t *testing.T, h *harness) {
		h.repo.own, h.repo.good = mixed, good(time.Now().Add(time.Hour))
		h.start(t)
		if wants := h.wants(); len(wants) == 0 || wants[len(wants)-1] != "m+llama good:m+old fetch" {
			t.Errorf("the manifest names another runtime: got %q, want the old one offered, too", wants)
		}
	})
	bubble(t, "", func(t *testing.T, h *harness) {
		h.signed(false)
		h.repo.own, h.repo.good = mixed, good(time.Now().Add(time.Hour))
		h.start(t)
		h.wantWants(t, "m+ good:m+old manifest_unreachable", "m+ good:m+old reauth")
		time.Sleep(72 * time.Hour)
		if lost := h.losses(); len(lost) != 0 {
			t.Errorf("in the grace period: got %v, want nothing lost", lost)
		}
		time.Sleep(2 * time.Hour)
		h.wantWants(t, "+ manifest_expired", "m+ reauth")
		if lost := h.losses(); fmt.Sprint(lost) != "[manifest_expired]" {
			t.Errorf("lost: got %v, want [manifest_expired], so that the pair ends", lost)
		}
	})
}

// M10, M16: with a binary that the configuration names, a model of the user is switched to and fetched without any runtime.
func TestOwnWithUnpinned(t *testing.T) {
	mixed := owned(t, "m*")
	bubble(t, "", func(t *testing.T, h *harness) {
		h.actor.deps.NoHub, h.actor.deps.Unpinned = true, true
		h.repo.own = mixed
		h.start(t)
		h.wantWants(t, "m+ fetch")
		reply := h.pull("")
		synctest.Wait()
		fetch, ok := (<-h.provision).(messages.Fetch)
		if !ok || fetch.Artifact.Name != "m" {
			t.Fatalf("got %+v, want the model fetched", fetch)
		}
		fetch.Reply <- messages.ReasonOK
		if reason := <-reply; reason != messages.ReasonOK {
			t.Errorf("got %s, want ok", reason)
		}
	})
}

// hubDigest is the digest of the hub's runtime.
func hubDigest(hub tuf.Catalogue) [32]byte {
	a, _ := hub.Runtime("")
	return a.SHA256
}

// M16, M13: a change of the catalogue takes effect at once. Removing what runs withdraws it; removing something else does
// not.
func TestReload(t *testing.T) {
	before, more, less, without := owned(t, "m*", "r*"), owned(t, "m", "n*", "r*"), owned(t, "m*", "r*"), owned(t, "n*", "r*")
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, "", tuf.Catalogue{})
		h.actor.deps.NoHub = true
		h.repo.own = before
		h.start(t)
		h.mailbox <- messages.PairReady{Model: ownDigest("m"), Runtime: ownDigest("r")}
		reload := func(own tuf.Catalogue) []string {
			t.Helper()
			h.repo.change(func(r *repository) { r.own = own })
			h.wants()
			reply := make(chan messages.Reason, 1)
			h.mailbox <- messages.ReloadOwn{Reply: reply}
			if reason := <-reply; reason != messages.ReasonOK {
				t.Errorf("got %s, want ok", reason)
			}
			return h.wants()
		}
		lost := func() bool {
			synctest.Wait()
			for {
				select {
				case m := <-h.lifecycle:
					if l, ok := m.(messages.IntegrityLost); ok && l.Reason == messages.ReasonNoSuchTarget {
						return true
					}
				default:
					return false
				}
			}
		}
		if wants := reload(more); wants[len(wants)-1] != "n+r fetch" || lost() {
			t.Errorf("after an addition: got %q, want n+r, and m serving on", wants)
		}
		if wants := reload(less); wants[len(wants)-1] != "m+r fetch" || lost() {
			t.Errorf("after the addition is removed: got %q, want m+r, and m serving on", wants)
		}
		if wants := reload(without); wants[len(wants)-1] != "n+r fetch" || !lost() {
			t.Errorf("after what runs is removed: got %q, want n+r and m withdrawn", wants)
		}
	})
}

// M16, M15: a catalogue that does not verify gives nothing and says so; the files that it names are not removed.
func TestOwnUntrusted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, "", tuf.Catalogue{})
		h.actor.deps.NoHub = true
		h.repo.ownErr = &tuf.Error{Reason: messages.ReasonManifestUntrusted}
		h.start(t)
		if wants := h.wants(); len(wants) == 0 || wants[len(wants)-1] != "+ manifest_untrusted" {
			t.Errorf("got %q, want nothing because of manifest_untrusted", wants)
		}
		reply := make(chan messages.PruneResult, 1)
		h.mailbox <- messages.PruneUnused{Reply: reply}
		if r := <-reply; r.Reason == messages.ReasonOK {
			t.Errorf("got %+v, want the clean-up refused", r)
		}
		if v := h.view.Get(); v.AddedReason != messages.ReasonManifestUntrusted {
			t.Errorf("got %+v, want the reason in the view", v)
		}
	})
}

// M16: a pull of the user's own artifacts needs no hub.
func TestPullOwn(t *testing.T) {
	own := owned(t, "m*", "r*")
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, "", tuf.Catalogue{})
		h.actor.deps.NoHub = true
		h.repo.own = own
		h.start(t)
		h.wants()
		for name, want := range map[string]messages.Reason{"": messages.ReasonOK, "m": messages.ReasonOK, "x": messages.ReasonNoSuchTarget} {
			reply := make(chan messages.Reason, 1)
			h.mailbox <- messages.Pull{Name: name, Reply: reply}
			for synctest.Wait(); len(h.provision) > 0; synctest.Wait() {
				if fetch, ok := (<-h.provision).(messages.Fetch); ok {
					fetch.Reply <- messages.ReasonOK
				}
			}
			if got := <-reply; got != want {
				t.Errorf("pull %q: got %s, want %s", name, got, want)
			}
		}
	})
}
