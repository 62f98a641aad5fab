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

	"github.com/thejerf/suture/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"companion/actors/actorkit"
	"companion/adapters/authority/tuf"
	"companion/adapters/authority/tuf/tuftest"
	"companion/messages"
)

// repository is a fake Repository. It returns catalogues that a real TUF client has verified, and injected faults.
type repository struct {
	mu        sync.Mutex
	kept      tuf.Catalogue // what Load returns, if keptErr is nil
	keptErr   error
	fresh     tuf.Catalogue
	freshErr  error
	took      time.Duration
	refreshes int
	tokens    []string
	panics    bool
	good      tuf.Pair
	own       tuf.Catalogue
	ownErr    error
	remember  [][2][32]byte
	refuse    string // the hub answers 401 to this access token
}

func (r *repository) LoadOwn() (tuf.Catalogue, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.own, r.ownErr
}

func (r *repository) LastGood() (tuf.Pair, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.good.Model.Kind == "" {
		return tuf.Pair{}, errors.New("none")
	}
	return r.good, nil
}

func (r *repository) Remember(model, runtime [32]byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remember = append(r.remember, [2][32]byte{model, runtime})
	return nil
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
	if r.refuse != "" && access.Reveal() == r.refuse {
		return tuf.Catalogue{}, &tuf.Error{Reason: messages.ReasonSignInNeeded}
	}
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

// harness is the actor with fake session, provision and lifecycle actors.
type harness struct {
	repo      *repository
	mailbox   chan messages.ManifestCommand
	provision chan messages.ToProvision
	lifecycle chan messages.ToLifecycle
	view      *actorkit.Watch[messages.ManifestView]
	logs      *observer.ObservedLogs
	actor     *Actor

	mu      sync.Mutex
	session messages.AccessToken
	renewed string // the token that replaces a refused one; empty: the refused one
	prunes  []messages.Prune
	asked   int           // requests to the session that carry a refused token
	jump    time.Duration // by which the wall clock is changed
}

// now is the wall clock.
func (h *harness) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Add(h.jump)
}

func newHarness(t *testing.T, model string, catalogue tuf.Catalogue) *harness {
	core, logs := observer.New(zap.DebugLevel)
	h := &harness{
		repo:    &repository{keptErr: &tuf.Error{Reason: messages.ReasonManifestUnreachable}, fresh: catalogue},
		mailbox: make(chan messages.ManifestCommand, 8), provision: make(chan messages.ToProvision, 1000),
		lifecycle: make(chan messages.ToLifecycle, 100), view: actorkit.NewWatch(messages.ManifestView{}), logs: logs,
		session: messages.AccessToken{Token: messages.NewSecret("access-token"), Reason: messages.ReasonOK},
	}
	requests := make(chan messages.AccessTokenRequest)
	go func() {
		for {
			select {
			case r := <-requests:
				h.mu.Lock()
				if !r.Refused.IsZero() {
					h.asked++
					if h.renewed != "" && r.Refused.Reveal() == h.session.Token.Reveal() {
						h.session.Token = messages.NewSecret(h.renewed)
					}
				}
				r.Reply <- h.session
				h.mu.Unlock()
			case <-t.Context().Done():
				return
			}
		}
	}()
	h.actor = New(Deps{
		Inbox: h.mailbox, Session: requests, Provision: h.provision, Lifecycle: h.lifecycle, Repository: h.repo,
		View: h.view, Model: model, Grace: 72 * time.Hour, Now: h.now, Log: zap.New(core),
	})
	return h
}

func (h *harness) signed(in bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.session = messages.AccessToken{Reason: messages.ReasonSignInNeeded}
	if in {
		h.session = messages.AccessToken{Token: messages.NewSecret("access-token"), Reason: messages.ReasonOK}
	}
}

func (h *harness) start(t *testing.T) {
	s := suture.New("test", suture.Spec{FailureBackoff: time.Second, EventHook: func(suture.Event) {}})
	s.Add(h.actor)
	ctx, cancel := context.WithCancel(t.Context())
	done := s.ServeBackground(ctx)
	t.Cleanup(func() { cancel(); <-done })
	synctest.Wait()
}

// wants drains the messages to provision and returns them as short text.
func (h *harness) wants() (all []string) {
	synctest.Wait()
	for {
		select {
		case m := <-h.provision:
			w, ok := m.(messages.Want)
			if p, isPrune := m.(messages.Prune); isPrune {
				h.prunes = append(h.prunes, p)
				continue
			}
			if !ok {
				all = append(all, fmt.Sprintf("%T", m))
				continue
			}
			text := w.Model.Name + "+" + w.Runtime.Name
			if w.GoodModel.Name != "" {
				text += " good:" + w.GoodModel.Name + "+" + w.GoodRuntime.Name
			}
			if w.MayFetch {
				text += " fetch"
			}
			all = append(all, strings.TrimSpace(text+" "+string(w.FetchRefused)))
		default:
			return all
		}
	}
}

func (h *harness) wantWants(t *testing.T, want ...string) {
	t.Helper()
	if got := h.wants(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("messages to provision: got %q, want %q", got, want)
	}
}

func (h *harness) losses() (all []messages.Reason) {
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

func (h *harness) pull(name string) chan messages.Reason {
	reply := make(chan messages.Reason, 1)
	h.mailbox <- messages.Pull{Name: name, Reply: reply}
	return reply
}

// verified makes a catalogue with a real repository and client.
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

// bubble runs f in a synctest bubble, with a fresh catalogue that expires in one day.
func bubble(t *testing.T, model string, f func(t *testing.T, h *harness)) {
	t.Helper()
	cat := verified(t)
	synctest.Test(t, func(t *testing.T) {
		cat.CheckedAt, cat.Expires = time.Now(), time.Now().Add(24*time.Hour)
		f(t, newHarness(t, model, cat))
	})
}
