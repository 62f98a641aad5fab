// Package provision is the actor that keeps the wanted model and runtime on disk, verified (contract
// M4–M9, M11–M13). It decides whether an artifact is verified: its size and digest must equal the manifest's. The download
// adapter only transfers bytes; the store only keeps files.
//
// Each artifact is handled by one job in its own goroutine. A job checks the disk first, fetches
// missing bytes if that is allowed, continues an earlier transfer, and ends with one result. The actor also checks the disk
// for the last known good pair, and offers it as soon as it is found (M13). A new Want replaces the previous one: jobs that
// only the previous one needed are cancelled, and their bytes are kept.
package provision

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/adapters/runtime/download"
	"companion/adapters/runtime/store"
	"companion/messages"
)

// Downloader is implemented by download.Client; tests inject faults.
type Downloader interface {
	Fetch(ctx context.Context, req download.Request, sink download.Sink) error
}

// Deps are the dependencies of the actor.
type Deps struct {
	Inbox     <-chan messages.ToProvision
	Lifecycle chan<- messages.ToLifecycle
	Transfers *actorkit.Watch[[]messages.Transfer] // set here, at least once a second during transfers (M11)
	Store     *store.Store
	Download  Downloader
	// Unpinned is the binary that the configuration allows without a digest (M10), an absolute path. If
	// set, it replaces the wanted runtime, and no runtime is fetched.
	Unpinned string
	Log      *zap.Logger
}

// Actor is the provision actor.
type Actor struct{ deps Deps }

// New returns the actor; Serve runs it.
func New(deps Deps) *Actor {
	deps.Store.NotRecorded = func(err error) {
		deps.Log.Warn("verified artifact not recorded, it is read again at the next check", zap.String("reason", string(reasonOf(err))), zap.Error(err))
	}
	return &Actor{deps}
}

func (a *Actor) String() string { return string(messages.ActorProvision) }

// digest identifies a job: the SHA-256 of its artifact. It is zero for the unpinned binary.
type digest = [32]byte

// service is the state of one Serve. Only its loop accesses it.
type service struct {
	Deps
	ctx        context.Context // of the jobs
	jobs       map[digest]*job
	background sync.WaitGroup
	results    chan result
	out        []messages.ToLifecycle // queue to lifecycle, so that the loop never waits for it
	want       *messages.Want
	known      map[digest]result // results since the last check
	// refetched are the artifacts that were fetched again because their files were wrong, since the last Want or PairReady.
	refetched map[digest]bool
	offered   map[digest]bool     // sent to lifecycle since a pair became ready
	files     map[digest][]digest // of the offered models
	locks     fileLocks
	ready     bool        // a pair has become ready
	refused   bool        // an artifact is missing and its fetch was not allowed
	retry     *time.Timer // runs after a transient failure
	pauses    *backoff.ExponentialBackOff
	meters    map[digest]*meter
}

// Serve runs until ctx ends, and returns when every job has ended.
func (a *Actor) Serve(ctx context.Context) error {
	jobs, cancel := context.WithCancel(ctx)
	s := &service{
		Deps: a.deps, ctx: jobs, jobs: map[digest]*job{}, results: make(chan result),
		out:   []messages.ToLifecycle{messages.ActorStarted{Actor: messages.ActorProvision}},
		known: map[digest]result{}, refetched: map[digest]bool{}, offered: map[digest]bool{}, files: map[digest][]digest{},
		retry: time.NewTimer(time.Hour), pauses: newPauses(30*time.Second, 10*time.Minute), meters: map[digest]*meter{},
	}
	s.retry.Stop()
	defer s.end(cancel)
	return s.loop(ctx)
}

// end stops the jobs and answers the pending requests.
func (s *service) end(cancel context.CancelFunc) {
	cancel()
	s.background.Wait()
	s.retry.Stop()
	for _, j := range s.jobs {
		j.answer(messages.ReasonTransferFailed)
	}
	s.Transfers.Set([]messages.Transfer{})
}

func (s *service) loop(ctx context.Context) error {
	beat := time.NewTicker(beatPeriod)
	defer beat.Stop()
	beat.Stop()
	ticking := false
	for {
		if busy := len(s.jobs) > 0; busy != ticking {
			if ticking = busy; busy {
				beat.Reset(beatPeriod)
			} else {
				beat.Stop() // an idle daemon must not wake up
				s.publish()
			}
		}
		var lifecycle chan<- messages.ToLifecycle
		var next messages.ToLifecycle
		if len(s.out) > 0 {
			lifecycle, next = s.Lifecycle, s.out[0]
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case lifecycle <- next:
			s.out = s.out[1:]
		case m := <-s.Inbox:
			s.handle(m)
		case r := <-s.results:
			s.finished(r)
		case <-beat.C:
			s.publish()
		case <-s.retry.C:
			s.check(false)
		}
	}
}

func (s *service) tell(m messages.ToLifecycle) { s.out = append(s.out, m) }

func (s *service) handle(m messages.ToProvision) {
	switch m := m.(type) {
	case messages.Want:
		if s.refused && m.MayFetch {
			// The missing artifact may be fetched now: the reported reason no longer holds.
			s.tell(messages.IntegrityLost{Artifact: m.Model.Name, SHA256: m.Model.SHA256, Reason: messages.ReasonNotReady})
		}
		s.refused = false
		s.want = &m
		s.pauses.Reset()
		clear(s.refetched)
		s.check(false)
	case messages.Fetch:
		s.fetch(m)
	case messages.Reverify:
		s.check(true)
	case messages.ConfirmProvision:
		s.check(false)
	case messages.PairReady:
		s.ready = true
		clear(s.refetched)
		s.offered = map[digest]bool{m.Model: true, m.Runtime: true}
		s.files = map[digest][]digest{m.Model: s.files[m.Model]}
	case messages.Prune:
		s.prune(m)
	case messages.Held:
		s.background.Go(func() {
			held := make([]messages.HeldArtifact, 0, len(m.Artifacts))
			for _, a := range m.Artifacts {
				held = append(held, s.Store.Held(s.ctx, a))
			}
			m.Reply <- held
		})
	}
}

// check starts jobs for the wanted pair and the last known good one. rehash reads the files on disk even if
// their identity has not changed (M9).
func (s *service) check(rehash bool) {
	if s.want == nil {
		return
	}
	s.retry.Stop()
	clear(s.known)
	if !s.want.MayFetch {
		s.stopFetching()
	}
	s.cancelUnneeded()
	good, hasGood := s.good()
	wanted, hasWanted := s.wanted()
	if hasWanted {
		for _, a := range wanted {
			// What the user added needs no session and no manifest of a hub (M16).
			s.start(a, options{mayFetch: s.want.MayFetch || a.Own, rehash: rehash}).wanted = true
		}
	}
	if hasGood {
		for _, a := range good {
			s.start(a, options{rehash: rehash}).wanted = true
		}
	}
	if !hasWanted && !hasGood {
		clear(s.offered) // what was offered is withdrawn
		s.refused = true
		s.tell(messages.IntegrityLost{Artifact: s.want.Model.Name, SHA256: s.want.Model.SHA256, Reason: s.refusal(messages.ReasonMalformedSpec)})
	}
}

// wanted returns the wanted model and runtime. There are none while the manifest allows nothing.
func (s *service) wanted() ([2]messages.Artifact, bool) {
	return s.pair(s.want.Model, s.want.Runtime)
}

// good returns the last known good model and runtime.
func (s *service) good() ([2]messages.Artifact, bool) {
	return s.pair(s.want.GoodModel, s.want.GoodRuntime)
}

func (s *service) pair(model, runtime messages.Artifact) ([2]messages.Artifact, bool) {
	if s.Unpinned != "" {
		runtime = messages.Artifact{Kind: messages.KindRuntime}
	}
	return [2]messages.Artifact{model, runtime}, model.Kind == messages.KindModel && runtime.Kind == messages.KindRuntime
}

// refusal returns the reason why nothing may be fetched, or the argument otherwise if there is none.
func (s *service) refusal(otherwise messages.Reason) messages.Reason {
	if s.want.FetchRefused != "" {
		return s.want.FetchRefused
	}
	return otherwise
}

// stopFetching cancels every transfer, because the manifest does not allow any (M1). The bytes are kept.
func (s *service) stopFetching() {
	for _, j := range s.jobs {
		if !j.options.mayFetch || j.artifact.Own {
			continue
		}
		j.answer(s.refusal(messages.ReasonSignInNeeded))
		j.options.mayFetch, j.again = false, true
		j.stop()
	}
}

// cancelUnneeded ends the jobs of the previous Want that the current one does not need.
func (s *service) cancelUnneeded() {
	needed := map[digest]bool{}
	for _, pair := range []func() ([2]messages.Artifact, bool){s.wanted, s.good} {
		if artifacts, ok := pair(); ok {
			needed[artifacts[0].SHA256], needed[artifacts[1].SHA256] = true, true
		}
	}
	for key, j := range s.jobs {
		if j.wanted && !needed[key] {
			j.wanted = false
			if !j.needed() {
				j.stop()
			}
		}
	}
}

func (s *service) fetch(m messages.Fetch) {
	j := s.start(m.Artifact, options{mayFetch: true})
	j.waiting = append(j.waiting, m.Reply)
}

// start returns the job for a with at least the options o. A job with fewer options, or one that is being cancelled, ends
// first and is then started again, because two jobs would write to one file.
func (s *service) start(a messages.Artifact, o options) *job {
	j, ok := s.jobs[a.SHA256]
	if !ok {
		j = &job{artifact: a, options: o}
		s.jobs[a.SHA256] = j
		s.launch(j)
		return j
	}
	if covered := j.options.with(o); covered != j.options || j.cancelled {
		j.artifact, j.options, j.again = a, covered, true
		j.stop()
	}
	return j
}

func (s *service) launch(j *job) {
	ctx, cancel := context.WithCancelCause(s.ctx)
	j.cancel, j.cancelled, j.again = cancel, false, false
	w := worker{Deps: s.Deps, artifact: j.artifact, options: j.options, transfer: &j.transfer, locks: &s.locks}
	s.background.Go(func() {
		defer cancel(nil)
		r := w.run(ctx)
		select {
		case s.results <- r:
		case <-s.ctx.Done():
		}
	})
}

// finished handles the result of a job.
func (s *service) finished(r result) {
	if r.panicked != nil {
		s.Log.Error("job panicked", zap.ByteString("stack", r.stack))
		panic(fmt.Sprintf("job: %v", r.panicked)) // the supervisor restarts the actor
	}
	key := r.artifact.SHA256
	j := s.jobs[key]
	if (s.refetch(j, r) || j.again) && j.needed() {
		if errors.Is(r.err, errRemoved) && j.wanted && s.want != nil {
			s.verdict(r) // a runtime must not go on with these files
		}
		s.launch(j)
		return
	}
	delete(s.jobs, key)
	if !j.needed() {
		return
	}
	if r.reason == messages.ReasonOK {
		s.Log.Info("artifact verified", zap.String("artifact", r.artifact.Name))
	} else {
		s.Log.Warn("artifact not available", zap.String("artifact", r.artifact.Name), zap.String("reason", string(r.reason)), zap.Error(r.err))
	}
	j.answer(r.reason)
	if j.wanted && s.want != nil {
		s.known[key] = r
		s.verdict(r)
	}
}

// refetch reports whether wrong files that the job found on disk are fetched again at once. That happens once until the next
// Want or PairReady, so that a disk that keeps changing its bytes does not cause a download after the other.
func (s *service) refetch(j *job, r result) bool {
	key := r.artifact.SHA256
	if !errors.Is(r.err, errRemoved) || !j.mayFetch() || s.refetched[key] {
		return false
	}
	s.refetched[key] = true
	s.Log.Warn("artifact on disk is wrong, fetching it again", zap.String("artifact", r.artifact.Name),
		zap.String("reason", string(r.reason)), zap.Error(r.err))
	return true
}

// verdict reports to lifecycle that an artifact is missing or wrong, or that a pair is complete.
func (s *service) verdict(r result) {
	key := r.artifact.SHA256
	isIn := func(pair [2]messages.Artifact, ok bool) bool {
		return ok && (pair[0].SHA256 == key || pair[1].SHA256 == key)
	}
	wanted, good := isIn(s.wanted()), isIn(s.good())
	if r.reason == messages.ReasonOK {
		if good {
			s.offer(s.good, true)
		}
		if wanted && s.offer(s.wanted, false) {
			s.pauses.Reset()
		}
		return
	}
	reason := r.reason
	if errors.Is(r.err, store.ErrNotHere) {
		if !wanted {
			return // the last known good pair was removed from disk, which is not an error
		}
		if !r.artifact.Own {
			s.refused = true
			reason = s.refusal(reason)
		}
	}
	s.tell(messages.IntegrityLost{Artifact: r.artifact.Name, SHA256: key, Reason: reason})
	if wanted && (s.want.MayFetch || r.artifact.Own) && transient(r.reason) || unreadable(r.err) {
		s.retry.Reset(s.pauses.NextBackOff())
	}
}

// offer sends ArtifactsVerified to lifecycle if both parts of the pair are verified, and reports whether they are.
func (s *service) offer(pair func() ([2]messages.Artifact, bool), lastGood bool) bool {
	artifacts, _ := pair()
	model, runtime := s.known[artifacts[0].SHA256], s.known[artifacts[1].SHA256]
	if model.reason != messages.ReasonOK || runtime.reason != messages.ReasonOK {
		return false
	}
	s.offered[artifacts[0].SHA256], s.offered[artifacts[1].SHA256] = true, true
	s.files[artifacts[0].SHA256] = digestsOf(artifacts[0])
	s.tell(messages.ArtifactsVerified{Model: model.model, Runtime: runtime.runtime, LastGood: lastGood})
	return true
}

// transient reports whether a failure, such as one of the network or the disk, may end without a change of the manifest, so
// that the daemon tries again.
func transient(r messages.Reason) bool {
	switch r {
	case messages.ReasonTransferFailed, messages.ReasonBadStatus, messages.ReasonNoSpace, messages.ReasonOverBudget, messages.ReasonAddressNotAllowed,
		messages.ReasonNotExecutable:
		return true
	}
	return false
}
