// Package provision is the actor that has the wanted model and runtime on disk, verified (contract
// M4–M9, M11, M12). It owns the verdict: the download adapter only pumps, the store only keeps, and
// nothing is called verified but what this actor was told is right by size and digest.
//
// Each artifact is brought by one job beside the loop. A job looks at the disk first, fetches what is
// missing if it may, going on where an earlier transfer stopped, and ends with one result. A new Want
// takes the place of the last; what only the last needed is cancelled and its bytes are kept. Nothing
// that verified is ever deleted here, so the artifacts in use stay until somebody prunes.
package provision

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/adapters/runtime/download"
	"companion/adapters/runtime/store"
	"companion/messages"
)

// Downloader is download.Client, or a fault in its place.
type Downloader interface {
	Fetch(ctx context.Context, req download.Request, sink download.Sink) error
}

// Deps is what the actor is given.
type Deps struct {
	Inbox     <-chan messages.ToProvision
	Lifecycle chan<- messages.ToLifecycle
	Transfers *actorkit.Watch[[]messages.Transfer] // set here, at least once a second while bytes come (M11)
	Store     *store.Store
	Download  Downloader
	// Unpinned is the binary that the configuration allows without a digest (M10), an absolute path. When
	// set, it stands for the wanted runtime, and nothing is fetched for that.
	Unpinned string
	Log      *zap.Logger
}

// Actor is the provision actor.
type Actor struct{ deps Deps }

// New returns the actor; Serve runs it.
func New(deps Deps) *Actor { return &Actor{deps} }

func (a *Actor) String() string { return string(messages.ActorProvision) }

// digest names a job.
type digest = [32]byte

// service is the state of one Serve. Only its loop touches it.
type service struct {
	Deps
	ctx     context.Context // ends the jobs
	jobs    map[digest]*job
	beside  sync.WaitGroup
	results chan result
	out     []messages.ToLifecycle // not taken by lifecycle yet: the loop never waits for it
	want    *messages.Want
	model   *result // of the last Want, nil while not known
	runtime *result
	refused bool        // the last Want lacked something that might not be fetched
	retry   *time.Timer // stopped, or looks again after a failure that may pass
	pauses  *backoff.ExponentialBackOff
	meters  map[digest]*meter
}

// Serve runs until ctx ends, and returns when every job has ended.
func (a *Actor) Serve(ctx context.Context) error {
	jobs, cancel := context.WithCancel(ctx)
	s := &service{
		Deps: a.deps, ctx: jobs, jobs: map[digest]*job{}, results: make(chan result),
		out:   []messages.ToLifecycle{messages.ActorStarted{Actor: messages.ActorProvision}},
		retry: time.NewTimer(time.Hour), pauses: newPauses(30*time.Second, 10*time.Minute), meters: map[digest]*meter{},
	}
	s.retry.Stop()
	defer s.end(cancel)
	return s.loop(ctx)
}

// end stops what runs beside the loop and answers those who wait, so that nobody waits for an actor
// that is gone.
func (s *service) end(cancel context.CancelFunc) {
	cancel()
	s.beside.Wait()
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
				beat.Stop() // an idle daemon does not wake up
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
			s.check(options{mayFetch: s.want.MayFetch})
		}
	}
}

func (s *service) handle(m messages.ToProvision) {
	switch m := m.(type) {
	case messages.Want:
		if s.refused && m.MayFetch {
			// What was missing may be fetched now; the old reason no longer holds.
			s.out = append(s.out, messages.IntegrityLost{Artifact: m.Model.Name, Reason: messages.ReasonNotReady})
		}
		s.refused = false
		s.want = &m
		s.pauses.Reset()
		s.check(options{mayFetch: m.MayFetch})
	case messages.Fetch:
		s.fetch(m)
	case messages.Reverify:
		if s.want != nil {
			s.check(options{mayFetch: s.want.MayFetch, rehash: true})
		}
	case messages.ConfirmProvision:
		// Looking again costs a few system calls, and says what is true now.
		if s.want != nil {
			s.check(options{mayFetch: s.want.MayFetch})
		}
	case messages.Held:
		s.beside.Go(func() {
			held := make([]messages.HeldArtifact, 0, len(m.Artifacts))
			for _, a := range m.Artifacts {
				held = append(held, s.Store.Held(s.ctx, a))
			}
			m.Reply <- held
		})
	}
}

// check begins to find out anew whether the wanted model and runtime are here.
func (s *service) check(o options) {
	s.retry.Stop()
	s.model, s.runtime = nil, nil
	model, runtime := s.want.Model, s.want.Runtime
	if s.Unpinned != "" {
		runtime.Kind = messages.KindRuntime // the manifest may offer none
	}
	if model.Kind != messages.KindModel || runtime.Kind != messages.KindRuntime {
		// The manifest actor may want nothing, and says why.
		reason := messages.ReasonMalformedSpec
		if s.want.FetchRefused != "" {
			reason = s.want.FetchRefused
		}
		s.refused = true
		s.out = append(s.out, messages.IntegrityLost{Artifact: model.Name, Reason: reason})
		return
	}
	for _, j := range s.jobs {
		if key := j.artifact.SHA256; j.wanted && key != model.SHA256 && key != runtime.SHA256 {
			j.wanted = false
			j.cancelUnneeded()
		}
	}
	s.start(model, o).wanted = true
	s.start(runtime, o).wanted = true
}

func (s *service) fetch(m messages.Fetch) {
	j := s.start(m.Artifact, options{mayFetch: true})
	j.waiting = append(j.waiting, m.Reply)
}

// start returns the job for a, which will do at least what o asks. A job that does less, or that is
// being cancelled, ends first and is then started again, because two would write to one file.
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
		j.cancel(errSuperseded)
	}
	return j
}

func (s *service) launch(j *job) {
	ctx, cancel := context.WithCancelCause(s.ctx)
	j.cancel, j.cancelled, j.again = cancel, false, false
	w := worker{Deps: s.Deps, artifact: j.artifact, options: j.options, transfer: &j.transfer}
	s.beside.Go(func() {
		defer cancel(nil)
		r := w.run(ctx)
		select {
		case s.results <- r:
		case <-s.ctx.Done():
		}
	})
}

// finished takes the result of a job and says what follows from it.
func (s *service) finished(r result) {
	if r.panicked != nil {
		panic(fmt.Sprintf("job: %v", r.panicked)) // for the supervisor, where an actor's crash belongs
	}
	key := r.artifact.SHA256
	j := s.jobs[key]
	if j.again && j.needed() {
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
		s.verdict(r)
	}
}

// verdict tells lifecycle as soon as something is known for good: that one of the two is missing, or that
// both are right.
func (s *service) verdict(r result) {
	switch r.artifact.SHA256 {
	case s.want.Model.SHA256:
		s.model = &r
	case s.want.Runtime.SHA256:
		s.runtime = &r
	}
	if r.reason != messages.ReasonOK {
		reason := r.reason
		if errors.Is(r.err, store.ErrNotHere) {
			s.refused = true
			if s.want.FetchRefused != "" {
				reason = s.want.FetchRefused
			}
		}
		s.out = append(s.out, messages.IntegrityLost{Artifact: r.artifact.Name, Reason: reason})
		if s.want.MayFetch && passing(r.reason) {
			s.retry.Reset(s.pauses.NextBackOff())
		}
		return
	}
	if s.model != nil && s.model.reason == messages.ReasonOK && s.runtime != nil && s.runtime.reason == messages.ReasonOK {
		s.pauses.Reset()
		s.out = append(s.out, messages.ArtifactsVerified{Model: s.model.model, Runtime: s.runtime.runtime})
	}
}

// passing tells the failures that may end by themselves or by the user's hand, so that a daemon that
// was started without a network or with a full disk gets there in the end.
func passing(r messages.Reason) bool {
	return r == messages.ReasonTransferFailed || r == messages.ReasonBadStatus || r == messages.ReasonNoSpace
}
