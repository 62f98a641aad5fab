package provision

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"

	"companion/adapters/origin"
	"companion/adapters/runtime/archive"
	"companion/adapters/runtime/download"
	"companion/adapters/runtime/store"
	"companion/messages"
)

const (
	maxArtifact = 1 << 40 // bytes; far above any model, far below an overflow
	maxURLs     = 8
	// A transfer that makes no progress for this long, over several tries, is given up.
	patience = 2 * time.Minute
)

// errSuperseded is the cause when a job is ended because nobody needs it any more, or to do more.
var errSuperseded = errors.New("superseded")

// options says how much a job does.
type options struct {
	mayFetch bool
	rehash   bool // read what is here, whatever its identity (M9)
}

func (o options) with(p options) options {
	return options{o.mayFetch || p.mayFetch, o.rehash || p.rehash}
}

// job is the loop's view of the work on one artifact.
type job struct {
	artifact  messages.Artifact
	options   options
	wanted    bool // by the last Want
	waiting   []chan<- messages.Reason
	cancel    context.CancelCauseFunc
	cancelled bool
	again     bool // once ended
	transfer  atomic.Pointer[store.Accumulator]
}

func (j *job) needed() bool { return j.wanted || len(j.waiting) > 0 }

func (j *job) cancelUnneeded() {
	if !j.needed() {
		j.cancelled = true
		j.cancel(errSuperseded)
	}
}

func (j *job) answer(r messages.Reason) {
	for _, reply := range j.waiting {
		reply <- r // of capacity one
	}
	j.waiting = nil
}

// result is how a job ended. Reason is ReasonOK or why the artifact is not to be had.
type result struct {
	artifact messages.Artifact
	model    messages.VerifiedModel
	runtime  messages.VerifiedRuntime
	reason   messages.Reason
	err      error
	panicked any
}

// worker does the job, in its own goroutine.
type worker struct {
	Deps
	artifact messages.Artifact
	options  options
	transfer *atomic.Pointer[store.Accumulator]
}

func (w worker) run(ctx context.Context) (r result) {
	r.artifact = w.artifact
	defer func() {
		if p := recover(); p != nil {
			r.panicked = p
		}
	}()
	if w.artifact.Kind == messages.KindModel {
		r.model, r.err = w.ensureModel(ctx)
	} else {
		r.runtime, r.err = w.ensureRuntime(ctx)
	}
	r.reason = reasonOf(r.err)
	return r
}

func (w worker) ensureModel(ctx context.Context) (messages.VerifiedModel, error) {
	if err := wellFormed(w.artifact); err != nil {
		return messages.VerifiedModel{}, err
	}
	m, err := w.Store.Model(ctx, w.artifact, w.options.rehash)
	if !errors.Is(err, store.ErrNotHere) || !w.options.mayFetch {
		return m, err
	}
	if err := w.fetch(ctx); err != nil {
		return m, err
	}
	return w.Store.Model(ctx, w.artifact, false)
}

func (w worker) ensureRuntime(ctx context.Context) (messages.VerifiedRuntime, error) {
	if w.Unpinned != "" {
		return store.Unpinned(w.Unpinned)
	}
	if err := wellFormed(w.artifact); err != nil {
		return messages.VerifiedRuntime{}, err
	}
	r, err := w.Store.Runtime(ctx, w.artifact, w.options.rehash)
	if !errors.Is(err, store.ErrNotHere) {
		return r, err
	}
	// A crash between download and unpacking leaves the archive.
	if err := w.Store.Archived(ctx, w.artifact); errors.Is(err, store.ErrNotHere) && w.options.mayFetch {
		if err := w.fetch(ctx); err != nil {
			return r, err
		}
	} else if err != nil {
		return r, err
	}
	return w.Store.Unpack(ctx, w.artifact)
}

// fetch tries the URLs in order. Only a server that does not answer well makes it go on to the next:
// wrong bytes and forbidden sources are refusals, not failures (M8).
func (w worker) fetch(ctx context.Context) error {
	var err error
	for _, url := range w.artifact.URLs {
		err = w.fetchFrom(ctx, url)
		if r := reasonOf(err); r != messages.ReasonBadStatus && r != messages.ReasonTransferFailed || ctx.Err() != nil {
			break
		}
	}
	return err
}

// fetchFrom tries one URL until the verdict, a permanent failure, or patience without progress.
func (w worker) fetchFrom(ctx context.Context, url string) error {
	pauses := newPauses(500*time.Millisecond, 30*time.Second)
	pauses.MaxElapsedTime = patience
	most := int64(0)
	try := func() error {
		err := w.attempt(ctx, url)
		if acc := w.transfer.Load(); acc != nil && acc.Bytes() > most {
			most = acc.Bytes()
			pauses.Reset()
		}
		if failure := (*download.Error)(nil); err != nil && (!errors.As(err, &failure) || failure.Permanent) {
			return backoff.Permanent(err)
		}
		return err
	}
	notice := func(err error, pause time.Duration) {
		w.Log.Info("download interrupted", zap.String("artifact", w.artifact.Name), zap.String("reason", string(reasonOf(err))),
			zap.Error(err), zap.Duration("pause", pause))
	}
	err := backoff.RetryNotify(try, backoff.WithContext(pauses, ctx), notice)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// attempt makes one transfer and gives the verdict. What an interrupted one brought is kept; what was
// found wrong is deleted (M6).
func (w worker) attempt(ctx context.Context, url string) error {
	acc, err := w.Store.Accumulate(ctx, w.artifact, url)
	if err != nil {
		return err
	}
	w.transfer.Store(acc)
	if !acc.Complete() {
		err = w.Download.Fetch(ctx, download.Request{
			URL: url, Origins: w.artifact.Origins, PrivateHosts: w.artifact.PrivateHosts,
			Offset: acc.Bytes(), Validator: acc.Validator(),
		}, acc)
	}
	switch reasonOf(err) {
	case messages.ReasonOK:
		return acc.Commit()
	case messages.ReasonSizeMismatch, messages.ReasonDigestMismatch:
		return errors.Join(err, acc.Discard())
	}
	if kept := acc.Abort(); kept != nil {
		// The next try reads what is on disk instead.
		w.Log.Debug("partial download not recorded", zap.String("artifact", w.artifact.Name), zap.Error(kept))
	}
	return err
}

func newPauses(first, longest time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.MaxElapsedTime = first, longest, 0
	b.Reset()
	return b
}

// specError says that what the manifest says of an artifact cannot be used.
type specError struct{ what string }

func (e *specError) Error() string { return "artifact: " + e.what }

// wellFormed checks what the manifest says before anything is done with it (M2, M4, M12).
func wellFormed(a messages.Artifact) error {
	switch {
	case a.Name == "" || a.SHA256 == digest{}:
		return &specError{"no name or no digest"}
	case a.Size <= 0 || a.Size > maxArtifact:
		return &specError{"an impossible size"}
	case len(a.URLs) == 0 || len(a.URLs) > maxURLs:
		return &specError{fmt.Sprintf("%d URLs", len(a.URLs))}
	}
	for _, url := range a.URLs {
		if err := origin.Allowed(url, a.Origins); err != nil {
			return err
		}
	}
	switch a.Kind {
	case messages.KindModel:
		return nil
	case messages.KindRuntime:
		if a.Format != "tar.gz" && a.Format != "zip" {
			return &specError{"an unknown archive format"}
		}
		return archive.CheckList(a.Files, a.Executable)
	}
	return &specError{"an unknown kind"}
}

// reasonOf is the reason that an error of the adapters carries. What carries none failed for no reason
// that is known, which is a failure of the transfer.
func reasonOf(err error) messages.Reason {
	var (
		fromDownload *download.Error
		fromSource   *origin.Error
		fromStore    *store.Error
		fromArchive  *archive.Error
		fromSpec     *specError
	)
	switch {
	case err == nil:
		return messages.ReasonOK
	case errors.Is(err, store.ErrNotHere):
		return messages.ReasonSignInNeeded // fetching is what signing in allows
	case errors.As(err, &fromStore):
		return fromStore.Reason
	case errors.As(err, &fromDownload):
		return fromDownload.Reason
	case errors.As(err, &fromSource):
		return fromSource.Reason
	case errors.As(err, &fromArchive):
		return fromArchive.Reason
	case errors.As(err, &fromSpec):
		return messages.ReasonMalformedSpec
	}
	return messages.ReasonTransferFailed
}
