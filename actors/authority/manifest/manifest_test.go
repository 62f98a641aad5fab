package manifest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"companion/actors/mailbox"
	"companion/adapters/authority/tuf"
	"companion/adapters/authority/tuf/tuftest"
	"companion/messages"

	"github.com/thejerf/suture/v4"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// repository answers with catalogues that a real TUF client has verified, and with faults.
type repository struct {
	mu        sync.Mutex
	kept      tuf.Catalogue // what Load gives, when keptErr is nil
	keptErr   error
	fresh     tuf.Catalogue
	freshErr  error
	took      time.Duration
	refreshes int
	tokens    []string
	panics    bool
}

func (r *repository) Load() (tuf.Catalogue, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.kept, r.keptErr
}

func (r *repository) Refresh(ctx context.Context, access messages.Secret) (tuf.Catalogue, error) {
	r.mu.Lock()
	r.refreshes++
	r.tokens = append(r.tokens, access.Reveal())
	took, panics := r.took, r.panics
	r.panics = false
	r.mu.Unlock()
	if panics {
		panic("a broken library")
	}
	select {
	case <-time.After(took):
	case <-ctx.Done():
		return tuf.Catalogue{}, &tuf.Error{Reason: messages.ReasonManifestUnreachable}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fresh, r.freshErr
}

func (r *repository) change(f func(*repository)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
}

func (r *repository) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refreshes
}

// house is the actor among a session, a provision and a lifecycle that a test plays.
type house struct {
	repo      *repository
	mailbox   chan messages.ManifestCommand
	provision chan messages.ToProvision
	lifecycle chan messages.ToLifecycle
	view      *mailbox.Watch[messages.ManifestView]
	logs      *observer.ObservedLogs
	actor     *Actor

	mu      sync.Mutex
	session messages.AccessToken
}

func newHouse(t *testing.T, model string, catalogue tuf.Catalogue) *house {
	core, logs := observer.New(zap.DebugLevel)
	h := &house{
		repo:    &repository{keptErr: &tuf.Error{Reason: messages.ReasonManifestUnreachable}, fresh: catalogue},
		mailbox: make(chan messages.ManifestCommand, 8), provision: make(chan messages.ToProvision, 100),
		lifecycle: make(chan messages.ToLifecycle, 100), view: mailbox.NewWatch(messages.ManifestView{}), logs: logs,
		session: messages.AccessToken{Token: messages.NewSecret("access-token"), Reason: messages.ReasonOK},
	}
	requests := make(chan messages.AccessTokenRequest)
	go func() {
		for {
			select {
			case r := <-requests:
				h.mu.Lock()
				r.Reply <- h.session
				h.mu.Unlock()
			case <-t.Context().Done():
				return
			}
		}
	}()
	h.actor = New(Deps{
		Mailbox: h.mailbox, Session: requests, Provision: h.provision, Lifecycle: h.lifecycle, Repository: h.repo,
		View: h.view, Model: model, Grace: 72 * time.Hour, Log: zap.New(core),
	})
	return h
}

func (h *house) signed(in bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.session = messages.AccessToken{Reason: messages.ReasonSignInNeeded}
	if in {
		h.session = messages.AccessToken{Token: messages.NewSecret("access-token"), Reason: messages.ReasonOK}
	}
}

func (h *house) start(t *testing.T) {
	s := suture.New("test", suture.Spec{FailureBackoff: time.Second, EventHook: func(suture.Event) {}})
	s.Add(h.actor)
	ctx, cancel := context.WithCancel(t.Context())
	done := s.ServeBackground(ctx)
	t.Cleanup(func() { cancel(); <-done })
	synctest.Wait()
}

// wants drains what provision was told, as short text.
func (h *house) wants() (all []string) {
	synctest.Wait()
	for {
		select {
		case m := <-h.provision:
			w, ok := m.(messages.Want)
			if !ok {
				all = append(all, fmt.Sprintf("%T", m))
				continue
			}
			text := w.Model.Name + "+" + w.Runtime.Name
			if w.MayFetch {
				text += " fetch"
			}
			all = append(all, strings.TrimSpace(text+" "+string(w.FetchRefused)))
		default:
			return all
		}
	}
}

func (h *house) wantWants(t *testing.T, want ...string) {
	t.Helper()
	if got := h.wants(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("provision heard %q, want %q", got, want)
	}
}

func (h *house) losses() (all []messages.Reason) {
	synctest.Wait()
	for {
		select {
		case m := <-h.lifecycle:
			if lost, ok := m.(messages.IntegrityLost); ok {
				all = append(all, lost.Reason)
			}
		default:
			return all
		}
	}
}

func (h *house) pull(name string) chan messages.Reason {
	reply := make(chan messages.Reason, 1)
	h.mailbox <- messages.Pull{Name: name, Reply: reply}
	return reply
}

// verified makes a catalogue by way of a real repository and client.
func verified(t *testing.T) tuf.Catalogue {
	t.Helper()
	repo := tuftest.New(t)
	main := tuftest.Model("main")
	main.Default = true
	repo.Add(main)
	repo.Add(tuftest.Model("other"))
	repo.Add(tuftest.Runtime("llama", "linux/amd64"))
	repo.Publish()
	_, url, http := tuftest.Serve(t, repo)
	client, err := tuf.New(tuf.Config{URL: url, Root: repo.PinnedRoot(), Dir: filepath.Join(t.TempDir(), "trust"), Platform: "linux/amd64", HTTP: http})
	if err != nil {
		t.Fatal(err)
	}
	cat, err := client.Refresh(t.Context(), messages.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	return cat
}

// bubble runs f with a fresh catalogue that expires in a day of the bubble's time.
func bubble(t *testing.T, model string, f func(t *testing.T, h *house)) {
	t.Helper()
	cat := verified(t)
	synctest.Test(t, func(t *testing.T) {
		cat.Expires = time.Now().Add(24 * time.Hour)
		f(t, newHouse(t, model, cat))
	})
}

// M1, M3: signed in, the manifest is fetched with the token, and again every hour.
func TestRefresh(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *house) {
		h.start(t)
		h.wantWants(t, "main+llama fetch")
		if v := h.view.Get(); v.Reason != messages.ReasonOK || v.Version != 2 || v.Grace {
			t.Fatalf("%+v", v)
		}
		time.Sleep(12 * time.Hour)
		if n := h.repo.count(); n < 11 || n > 14 {
			t.Fatalf("%d refreshes in twelve hours", n)
		}
		for _, token := range h.repo.tokens {
			if token != "access-token" {
				t.Fatal("a refresh without the token")
			}
		}
		if text := fmt.Sprintf("%+v", h.logs.All()); strings.Contains(text, "access-token") || strings.Contains(text, "https:") {
			t.Fatal("a token or URL is in the log")
		}
	})
}

// M1: signed out, nothing new is fetched and nobody is asked; what was verified before serves.
func TestSignedOut(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *house) {
		h.signed(false)
		h.repo.kept, h.repo.keptErr = h.repo.fresh, nil
		h.start(t)
		h.wantWants(t, "main+llama manifest_unreachable", "main+llama reauth")
		if r := <-h.pull(""); r != messages.ReasonSignInNeeded {
			t.Fatal(r)
		}
		time.Sleep(5 * time.Hour)
		if h.repo.count() != 0 {
			t.Fatal("refreshed without a sign-in")
		}
		h.signed(true)
		h.mailbox <- messages.SessionChanged{}
		h.wantWants(t, "main+llama fetch")
		h.signed(false)
		h.mailbox <- messages.SessionChanged{}
		h.wantWants(t, "main+llama reauth")
		if v := h.view.Get(); v.Reason != messages.ReasonSignInNeeded || v.Version != 2 {
			t.Fatalf("%+v", v)
		}
	})
}

// M1: without a network the kept manifest serves and fetches nothing; the network is tried again with
// growing pauses, and one hub's failure takes back nothing that a fresh manifest has allowed.
func TestNoNetwork(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *house) {
		h.repo.kept, h.repo.keptErr = h.repo.fresh, nil
		h.repo.freshErr = &tuf.Error{Reason: messages.ReasonManifestUnreachable}
		h.start(t)
		h.wantWants(t, "main+llama manifest_unreachable")
		time.Sleep(time.Hour)
		if n := h.repo.count(); n < 6 || n > 25 {
			t.Fatalf("%d tries in an hour", n)
		}
		h.repo.change(func(r *repository) { r.freshErr = nil })
		time.Sleep(16 * time.Minute)
		h.wantWants(t, "main+llama fetch")
		h.repo.change(func(r *repository) { r.freshErr = &tuf.Error{Reason: messages.ReasonManifestUnreachable} })
		time.Sleep(2 * time.Hour)
		h.wantWants(t)
		if v := h.view.Get(); v.Reason != messages.ReasonManifestUnreachable {
			t.Fatalf("%+v", v)
		}
	})
}

// M1: at expiry fetching ends by itself, a grace period later everything does, and a new manifest mends
// it.
func TestExpiryAndGrace(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *house) {
		h.start(t)
		h.wantWants(t, "main+llama fetch")
		good := h.repo.fresh
		h.repo.change(func(r *repository) { r.freshErr = &tuf.Error{Reason: messages.ReasonManifestExpired} })
		time.Sleep(23 * time.Hour)
		h.wantWants(t)
		time.Sleep(2 * time.Hour)
		h.wantWants(t, "main+llama manifest_expired")
		if v := h.view.Get(); !v.Grace || v.Reason != messages.ReasonManifestExpired {
			t.Fatalf("%+v", v)
		}
		if r := <-h.pull(""); r != messages.ReasonManifestExpired {
			t.Fatal(r)
		}
		if lost := h.losses(); lost != nil {
			t.Fatal(lost)
		}
		time.Sleep(72 * time.Hour)
		h.wantWants(t, "+ manifest_expired")
		if lost := h.losses(); len(lost) != 1 || lost[0] != messages.ReasonManifestExpired {
			t.Fatal(lost)
		}
		if v := h.view.Get(); v.Grace || v.Reason != messages.ReasonManifestExpired {
			t.Fatalf("%+v", v)
		}
		good.Expires = time.Now().Add(24 * time.Hour)
		h.repo.change(func(r *repository) { r.fresh, r.freshErr = good, nil })
		time.Sleep(16 * time.Minute)
		h.wantWants(t, "main+llama fetch")
	})
}

// M1, T6: an untrusted or rolled-back manifest changes nothing and is shown.
func TestRefusedManifest(t *testing.T) {
	for _, reason := range []messages.Reason{messages.ReasonManifestUntrusted, messages.ReasonManifestRollback} {
		bubble(t, "", func(t *testing.T, h *house) {
			h.repo.freshErr = &tuf.Error{Reason: reason}
			h.start(t)
			h.wantWants(t)
			if v := h.view.Get(); v.Reason != reason {
				t.Fatalf("%+v", v)
			}
			if r := <-h.pull(""); r != reason {
				t.Fatal(r)
			}
			reply := make(chan messages.ModelList, 1)
			h.mailbox <- messages.ListModels{Reply: reply}
			if list := <-reply; list.Reason != reason {
				t.Fatalf("%+v", list)
			}
		})
	}
}

// M2: a model that the manifest does not offer is lost, with the reason.
func TestUnknownModel(t *testing.T) {
	bubble(t, "absent", func(t *testing.T, h *house) {
		h.start(t)
		h.wantWants(t, "+ no_such_target")
		if lost := h.losses(); len(lost) != 1 || lost[0] != messages.ReasonNoSuchTarget {
			t.Fatal(lost)
		}
		if r := <-h.pull(""); r != messages.ReasonNoSuchTarget {
			t.Fatal(r)
		}
	})
}

// pull: the wanted pair, one by name, an unknown one, and what provision says of it.
func TestPull(t *testing.T) {
	bubble(t, "other", func(t *testing.T, h *house) {
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
				t.Fatalf("pull %q: %s, want %s", r.name, got, r.want)
			}
		}
	})
}

// models: what the manifest offers and what of it is here.
func TestListModels(t *testing.T) {
	bubble(t, "other", func(t *testing.T, h *house) {
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
		want := "[{Name:main Version:1 Size:1000 Default:true Selected:false Here:true Verified:true PartialBytes:0} " +
			"{Name:other Version:1 Size:1000 Default:false Selected:true Here:false Verified:false PartialBytes:1}]"
		if got != want {
			t.Fatalf("%s", got)
		}
	})
}

// A9: a new provision actor hears the last Want again; a new lifecycle needs nothing.
func TestRepeatWant(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *house) {
		h.start(t)
		h.wants()
		h.mailbox <- messages.RepeatWant{}
		h.wantWants(t, "main+llama fetch")
	})
}

// A sign-in that overlaps with a refresh needs no second one; a sign-out does take fetching away.
func TestSessionChangesDuringRefresh(t *testing.T) {
	for _, in := range []bool{true, false} {
		bubble(t, "", func(t *testing.T, h *house) {
			h.repo.took = 10 * time.Second
			h.start(t)
			h.signed(in)
			h.mailbox <- messages.SessionChanged{}
			time.Sleep(time.Minute)
			if h.repo.count() != 1 {
				t.Fatalf("%d refreshes", h.repo.count())
			}
			if in {
				h.wantWants(t, "main+llama fetch")
			} else {
				h.wantWants(t, "main+llama fetch", "main+llama reauth")
			}
		})
	}
}

// A slow hub keeps nobody waiting but who asked for it, and shutdown waits for nothing.
func TestHungRepository(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *house) {
		h.repo.took = time.Hour
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.actor.Serve(ctx) }()
		reply := make(chan messages.ModelList, 1)
		h.mailbox <- messages.ListModels{Reply: reply}
		if list := <-reply; list.Reason != messages.ReasonManifestUnreachable {
			t.Fatalf("%+v", list)
		}
		if r := <-h.pull(""); r != messages.ReasonManifestUnreachable { // after refreshTimeout
			t.Fatal(r)
		}
		waiting := h.pull("")
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if r := <-waiting; r != messages.ReasonManifestUnreachable {
			t.Fatal(r)
		}
	})
}

// A crash is contained, and the actor begins anew.
func TestPanicIsContained(t *testing.T) {
	bubble(t, "", func(t *testing.T, h *house) {
		h.repo.panics = true
		h.start(t)
		time.Sleep(5 * time.Second)
		h.wantWants(t, "main+llama fetch")
	})
}
