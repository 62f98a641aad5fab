package provision

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"

	"companion/adapters/artifact"
	"companion/adapters/origin"
	"companion/adapters/runtime/archive"
	"companion/adapters/runtime/download"
	"companion/adapters/runtime/store"
	"companion/messages"
)

const (
	// patience bounds how long one URL is tried without progress.
	patience = 2 * time.Minute
	// progressBytes must come within patience while there are other URLs.
	progressBytes = 1 << 20
	// longestWait bounds the Retry-After of a server.
	longestWait = time.Hour
)

// errSuperseded is the cause of cancellation of a job that is not needed, or must restart with other options.
var errSuperseded = errors.New("superseded")

// options say how much a job does.
type options struct {
	mayFetch bool
	rehash   bool // read the files even if their identity has not changed (M9)
}

func (o options) with(p options) options {
	return options{o.mayFetch || p.mayFetch, o.rehash || p.rehash}
}

// job is the loop's record of the work on one artifact.
type job struct {
	artifact  messages.Artifact
	options   options
	wanted    bool // by the current Want
	waiting   []chan<- messages.Reason
	cancel    context.CancelCauseFunc
	cancelled bool
	again     bool // start the job again when it has ended
	transfer  atomic.Pointer[counter]
}

// counter returns the bytes of a transfer that are on disk. Safe for concurrent use.
type counter interface{ Bytes() int64 }

func (j *job) needed() bool { return j.wanted || len(j.waiting) > 0 }

func (j *job) stop() {
	j.cancelled = true
	j.cancel(errSuperseded)
}

func (j *job) answer(r messages.Reason) {
	for _, reply := range j.waiting {
		reply <- r // of capacity one
	}
	j.waiting = nil
}

// result is the result of a job. Reason is ReasonOK or why the artifact is not available.
type result struct {
	artifact messages.Artifact
	model    messages.VerifiedModel
	runtime  messages.VerifiedRuntime
	reason   messages.Reason
	err      error
	panicked any
	stack    []byte
}

// worker does the work of one job, in its own goroutine.
type worker struct {
	Deps
	artifact messages.Artifact
	options  options
	transfer *atomic.Pointer[counter]
	locks    *fileLocks
	before   int64 // bytes of the files of the same model that are done
}

// counts makes c the count of the transfer.
func (w worker) counts(c counter) {
	c = after{c, w.before}
	w.transfer.Store(&c)
}

func (w worker) run(ctx context.Context) (r result) {
	r.artifact = w.artifact
	defer func() {
		if p := recover(); p != nil {
			r.panicked, r.stack = p, debug.Stack()
		}
	}()
	if w.artifact.Kind == messages.KindModel {
		r.model, r.err = w.ensureModel(ctx)
	} else {
		r.runtime, r.err = w.ensureRuntime(ctx)
	}
	r.reason = reasonOf(r.err)
	if w.artifact.Own && errors.Is(r.err, store.ErrNotHere) {
		r.reason = messages.ReasonFileMissing
	}
	return r
}

func (w worker) ensureModel(ctx context.Context) (messages.VerifiedModel, error) {
	if err := artifact.Check(w.artifact); err != nil {
		return messages.VerifiedModel{}, err
	}
	if len(w.artifact.Parts) > 0 {
		return w.ensureParts(ctx)
	}
	return w.ensureFile(ctx)
}

// ensureFile returns the model of one file. No other job uses the file meanwhile: another model may have it too (M17).
func (w worker) ensureFile(ctx context.Context) (messages.VerifiedModel, error) {
	unlock, err := w.locks.lock(ctx, w.artifact.SHA256)
	if err != nil {
		return messages.VerifiedModel{}, err
	}
	defer unlock()
	m, err := w.Store.Model(ctx, w.artifact, w.options.rehash)
	err = removed(err)
	if !errors.Is(err, store.ErrNotHere) || !w.mayFetch() {
		return m, err
	}
	if err := w.fetch(ctx); err != nil {
		return m, err
	}
	return w.Store.Model(ctx, w.artifact, false)
}

// mayFetch reports whether missing bytes may be downloaded. What the user added from a file has no URL.
func (w worker) mayFetch() bool { return w.options.mayFetch && len(w.artifact.URLs) > 0 }

func (j *job) mayFetch() bool { return j.options.mayFetch && len(j.artifact.URLs) > 0 }

// errRemoved marks the error of an artifact whose files on disk were wrong, and were deleted for it.
var errRemoved = errors.New("it was removed")

// removed marks an error of the store's look at the disk with errRemoved, if it says that the files were wrong.
func removed(err error) error {
	var own *store.Error
	if errors.As(err, &own) && (wrongBytes(own.Reason) || own.Reason == messages.ReasonMalformedSpec) {
		return fmt.Errorf("%w: %w", err, errRemoved)
	}
	return err
}

func (w worker) ensureRuntime(ctx context.Context) (messages.VerifiedRuntime, error) {
	if w.Unpinned != "" {
		return store.Unpinned(w.Unpinned)
	}
	if err := artifact.Check(w.artifact); err != nil {
		return messages.VerifiedRuntime{}, err
	}
	if err := w.Store.Executable(); err != nil {
		return messages.VerifiedRuntime{}, err
	}
	r, err := w.Store.Runtime(ctx, w.artifact, w.options.rehash)
	if !errors.Is(err, store.ErrNotHere) {
		return r, removed(err)
	}
	// After a crash between download and unpacking, the archive is on disk.
	if err := w.Store.Archived(ctx, w.artifact); errors.Is(err, store.ErrNotHere) && w.mayFetch() {
		if err := w.fetch(ctx); err != nil {
			return r, err
		}
	} else if err != nil {
		return r, removed(err)
	}
	return w.Store.Unpack(ctx, w.artifact)
}

// fetch tries the mirrors in order, until one has served the right bytes. A mirror that is unreachable, refuses, redirects
// to another place or serves wrong bytes does not exclude the others. A fault of this machine, such as a full disk, ends the
// search. If all mirrors fail, fetch returns the most serious error: wrong bytes, then a forbidden source, then an outage.
func (w worker) fetch(ctx context.Context) error {
	if len(w.artifact.Chunks) > 0 {
		return w.fetchChunks(ctx)
	}
	var worst error
	for i, url := range w.artifact.URLs {
		err := w.fetchFrom(ctx, url)
		if err == nil || ctx.Err() != nil || local(err) {
			return err
		}
		w.mirrorLeftOut(url, i+1, err)
		if worst == nil || gravity(err) > gravity(worst) {
			worst = err
		}
	}
	return worst
}

// mirrorLeftOut logs the host that is no longer used for this download, and its number in the manifest.
func (w worker) mirrorLeftOut(url string, number int, err error) {
	host, _ := origin.Host(url)
	w.Log.Warn("mirror left out", zap.String("artifact", w.artifact.Name), zap.String("mirror", host), zap.Int("number", number),
		zap.Int("of", len(w.artifact.URLs)), zap.String("reason", string(reasonOf(err))), zap.Error(err))
}

func (w worker) interrupted(err error, pause time.Duration) {
	w.Log.Info("download interrupted", zap.String("artifact", w.artifact.Name), zap.String("reason", string(reasonOf(err))),
		zap.Error(err), zap.Duration("pause", pause))
}

// local reports whether an error is about this machine's disk, not about a mirror.
func local(err error) bool {
	var own *store.Error
	return errors.As(err, &own) && !wrongBytes(own.Reason)
}

func wrongBytes(r messages.Reason) bool {
	return r == messages.ReasonDigestMismatch || r == messages.ReasonSizeMismatch
}

func gravity(err error) int {
	switch r := reasonOf(err); {
	case wrongBytes(r):
		return 2
	case transient(r):
		return 0
	}
	return 1
}

// fetchFrom tries one URL until its bytes are right or wrong, it fails permanently, or patience ends
// without progress. While there are other URLs, a few bytes are no progress: a server that breaks off after each byte would
// keep the others from being asked.
func (w worker) fetchFrom(ctx context.Context, url string) error {
	pauses := newTransferPauses()
	most, counted, restarted := int64(0), int64(0), false
	enough := int64(1)
	if len(w.artifact.URLs) > 1 {
		enough = min(progressBytes, w.artifact.Size/8+1)
	}
	for {
		mixed, err := w.attempt(ctx, url)
		if acc := w.transfer.Load(); acc != nil && (*acc).Bytes() > most {
			most = (*acc).Bytes()
			pauses.ExponentialBackOff.Reset()
			if most-counted >= enough {
				counted = most
				pauses.Reset()
			}
		}
		pause := time.Duration(0)
		switch failure := (*download.Error)(nil); {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			return nil
		case mixed && !restarted && wrongBytes(reasonOf(err)):
			// The wrong bytes may come from an earlier transfer that crashed or used another mirror. Fetch all
			// of them again, once, from this URL only: if they are still wrong, the fault is this mirror's.
			most, counted, restarted = 0, 0, true
		case !errors.As(err, &failure) || failure.Permanent:
			return err
		default:
			var patient bool
			if pause, patient = pauses.next(); !patient {
				return err
			}
			if failure.RetryAfter > pause {
				if failure.RetryAfter > longestWait || len(w.artifact.URLs) > 1 && failure.RetryAfter > patience {
					return err // trying another mirror is faster
				}
				pause = failure.RetryAfter
			}
		}
		w.interrupted(err, pause)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// attempt makes one transfer and returns the verdict. The bytes of an interrupted transfer are kept, wrong
// ones are deleted (M6). mixed reports whether some of the bytes come from an earlier transfer.
func (w worker) attempt(ctx context.Context, url string) (mixed bool, err error) {
	acc, err := w.Store.Accumulate(w.artifact, url)
	if err != nil {
		return false, err
	}
	w.counts(acc)
	if !acc.Complete() {
		err = w.Download.Fetch(ctx, download.Request{
			URL: url, Origins: w.artifact.Origins, PrivateHosts: w.artifact.PrivateHosts,
			Offset: acc.Bytes(), Validator: acc.Validator(), Size: w.artifact.Size,
		}, acc)
	}
	if err == nil {
		return acc.Mixed(), acc.Commit(ctx)
	}
	var verdict *store.Error
	if errors.As(err, &verdict) && wrongBytes(verdict.Reason) {
		return acc.Mixed(), errors.Join(err, acc.Discard())
	}
	if kept := acc.Abort(); kept != nil {
		w.Log.Debug("partial download not recorded", zap.String("artifact", w.artifact.Name), zap.Error(kept))
	}
	return false, err
}

func newPauses(first, longest time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = first, longest
	return b
}

// transferPauses are the pauses of a transfer without progress.
type transferPauses struct {
	*backoff.ExponentialBackOff
	progress time.Time // of the last Reset
}

func newTransferPauses() *transferPauses {
	return &transferPauses{newPauses(500*time.Millisecond, 30*time.Second), time.Now()}
}

// Reset begins again after progress.
func (p *transferPauses) Reset() {
	p.progress = time.Now()
	p.ExponentialBackOff.Reset()
}

// next returns the pause before the next attempt. patient is false if patience would then be over.
func (p *transferPauses) next() (pause time.Duration, patient bool) {
	pause = p.NextBackOff()
	return pause, time.Since(p.progress)+pause <= patience
}

// reasonOf returns the reason that an adapter's error carries, or transfer_failed.
func reasonOf(err error) messages.Reason {
	var (
		fromDownload *download.Error
		fromSource   *origin.Error
		fromStore    *store.Error
		fromArchive  *archive.Error
		fromEntry    *artifact.Error
	)
	switch {
	case err == nil:
		return messages.ReasonOK
	case errors.Is(err, store.ErrNotHere):
		return messages.ReasonSignInNeeded // a sign-in allows the fetch
	case errors.As(err, &fromStore):
		return fromStore.Reason
	case errors.As(err, &fromDownload):
		return fromDownload.Reason
	case errors.As(err, &fromSource):
		return fromSource.Reason
	case errors.As(err, &fromArchive):
		return fromArchive.Reason
	case errors.As(err, &fromEntry):
		return fromEntry.Reason
	}
	return messages.ReasonTransferFailed
}

// unreadable reports whether the look at the disk failed, so that nothing is known about the files. Looking again needs no
// permission to fetch.
func unreadable(err error) bool {
	var own *store.Error
	return errors.As(err, &own) && !errors.Is(err, errRemoved) && (transient(own.Reason) || own.Reason == messages.ReasonInvalidModelPath)
}
