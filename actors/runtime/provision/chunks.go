package provision

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"companion/adapters/runtime/download"
	"companion/adapters/runtime/store"
	"companion/messages"
)

// firstRun is the number of chunks of the first request, before a rate is known.
const firstRun = 4

// runTime is how long a request should last: long enough that the pause between two requests costs nothing, and short enough
// that the last requests end at about the same time.
const runTime = 10 * time.Second

// chunked is one download by chunks (M14). Its loop owns the state. Each run has a goroutine, and so have the digest of the file
// and the record of the chunks.
type chunked struct {
	worker
	ctx        context.Context // of the goroutines
	acc        *store.Assembly
	sources    []*source
	lines      lines
	running    int // runs
	flights    map[*store.Run]*flight
	began      time.Time
	atStart    int64 // bytes on disk
	digested   bool  // the digest of the file is complete
	ended      chan ending
	background sync.WaitGroup
}

// source is one URL of the artifact.
type source struct {
	url     string
	number  int // from 1
	active  int // runs
	pauses  *transferPauses
	failing bool      // the last run failed
	until   time.Time // no run begins before it
	whole   bool      // it serves only the whole file
	out     error     // why it is left out for the rest of this download
	idle    []*download.Line
	rate    float64 // of the last run, in bytes per second
}

// flight is a run that is under way.
type flight struct {
	source *source
	began  time.Time
	cancel context.CancelCauseFunc
}

// errRelieved is the cause of cancellation of a run whose chunks another source delivers faster.
var errRelieved = errors.New("another source is faster")

// slower is the factor by which a run must be slower than another source to be relieved at the end of a download.
const slower = 4

// ending is the result of one of the goroutines.
type ending struct {
	run      *store.Run // nil: of the digest or the record
	source   *source
	line     *download.Line
	digested bool
	err      error
	panicked any
	stack    []byte
}

// fetchChunks downloads the missing chunks from all mirrors, over as many connections as raise the rate. A mirror that
// sends a wrong chunk or fails permanently is left out, and its chunks come from the others.
func (w worker) fetchChunks(ctx context.Context) error {
	acc, err := w.Store.Assemble(ctx, w.artifact)
	if err != nil {
		return err
	}
	w.counts(acc)
	inner, cancel := context.WithCancelCause(ctx)
	c := &chunked{
		worker: w, ctx: inner, acc: acc, flights: map[*store.Run]*flight{}, began: time.Now(), atStart: acc.Bytes(), lines: newLines(time.Now(), acc.Bytes()),
		// Each goroutine sends once, so that none waits after the loop has ended.
		ended: make(chan ending, maxLines+2),
	}
	for i, url := range w.artifact.URLs {
		c.sources = append(c.sources, &source{url: url, number: i + 1, pauses: newTransferPauses()})
	}
	c.start(ending{digested: true}, acc.Follow)
	c.start(ending{}, acc.Keep)
	err = c.collect()
	cancel(errSuperseded)
	c.background.Wait()
	c.close()
	switch {
	case err == nil:
		return acc.Commit()
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	if kept := acc.Abort(); kept != nil {
		w.Log.Debug("partial download not recorded", zap.String("artifact", w.artifact.Name), zap.Error(kept))
	}
	return err
}

// start runs f in a goroutine that ends with a message to the loop.
func (c *chunked) start(e ending, f func(context.Context) error) {
	c.background.Go(func() {
		defer func() {
			if e.panicked = recover(); e.panicked != nil {
				e.stack = debug.Stack()
			}
			c.ended <- e
		}()
		e.err = f(c.ctx)
	})
}

// collect returns nil when every chunk is verified and in the digest of the file.
func (c *chunked) collect() error {
	beat := time.NewTicker(linesPeriod)
	defer beat.Stop()
	wake := time.NewTimer(time.Hour)
	defer wake.Stop()
	for {
		c.dispatch()
		if c.digested {
			return nil // every chunk is verified, so no run is left
		}
		pause, err := c.pause()
		if err != nil {
			return err
		}
		wake.Reset(pause)
		select {
		case <-c.ctx.Done():
			return context.Cause(c.ctx)
		case <-beat.C:
			c.lines.measure(time.Now(), c.acc.Bytes(), c.running)
			c.relieve(time.Now())
		case <-wake.C:
		case e := <-c.ended:
			if err := c.handle(e); err != nil {
				return err
			}
		}
	}
}

// dispatch begins runs, as many as connections are allowed.
func (c *chunked) dispatch() {
	for c.running < c.lines.limit {
		s := c.choose()
		if s == nil {
			return
		}
		run := c.acc.Claim(c.ctx, s.url, c.runLength(), c.running == 0)
		if run == nil {
			return
		}
		line := &download.Line{}
		if n := len(s.idle); n > 0 {
			line, s.idle = s.idle[n-1], s.idle[:n-1]
		}
		req := download.Request{
			URL: s.url, Origins: c.artifact.Origins, PrivateHosts: c.artifact.PrivateHosts,
			Offset: run.Offset(), Length: run.Length(), Size: c.artifact.Size, Line: line,
		}
		c.running++
		s.active++
		ctx, cancel := context.WithCancelCause(c.ctx)
		c.flights[run] = &flight{s, time.Now(), cancel}
		c.start(ending{run: run, source: s, line: line}, func(context.Context) error {
			defer cancel(nil)
			return c.Download.Fetch(ctx, req, run)
		})
	}
}

// relieve cancels the slow runs at the end of a download, when every missing chunk is in a run, so that one slow mirror does
// not hold up the others. The bytes of its chunk are kept.
func (c *chunked) relieve(now time.Time) {
	if c.acc.Missing() > 0 {
		return
	}
	for run, f := range c.flights {
		age := now.Sub(f.began)
		rate := float64(run.Added()) / age.Seconds()
		faster := func(s *source) bool {
			return s != f.source && s.out == nil && !now.Before(s.until) && !s.whole && s.rate > slower*rate
		}
		if age >= linesPeriod && slices.ContainsFunc(c.sources, faster) {
			f.source.until = now.Add(linesPause)
			f.cancel(errRelieved)
		}
	}
}

// choose returns the source with the fewest runs, in the order of the manifest; nil if none can be used now.
func (c *chunked) choose() (best *source) {
	now := time.Now()
	for _, s := range c.sources {
		if s.out != nil || now.Before(s.until) || s.whole && c.running > 0 {
			continue
		}
		if best == nil || s.active < best.active {
			best = s
		}
	}
	return best
}

// runLength returns how many chunks the next run should have.
func (c *chunked) runLength() int {
	n := firstRun
	if elapsed := time.Since(c.began).Seconds(); elapsed > 0 && c.acc.Bytes() > c.atStart {
		rate := float64(c.acc.Bytes()-c.atStart) / elapsed / float64(c.lines.limit)
		n = int(min(rate*runTime.Seconds()/float64(c.artifact.ChunkSize), float64(len(c.artifact.Chunks))))
	}
	if c.lines.limit > 1 {
		n = min(n, c.acc.Missing()/(2*c.lines.limit))
	}
	return max(n, 1)
}

// pause returns how long the loop may wait for the next source. The error is the worst failure, when every source is left
// out.
func (c *chunked) pause() (time.Duration, error) {
	pause, usable := time.Hour, false
	var worst error
	for _, s := range c.sources {
		switch {
		case s.out == nil:
			usable = true
			if left := time.Until(s.until); left > 0 {
				pause = min(pause, left)
			}
		case worst == nil || gravity(s.out) > gravity(worst):
			worst = s.out
		}
	}
	if usable || c.running > 0 || c.acc.Complete() {
		return pause, nil
	}
	return 0, worst
}

// handle takes the end of a goroutine. An error ends the download.
func (c *chunked) handle(e ending) error {
	if e.panicked != nil {
		c.Log.Error("a part of a job panicked", zap.ByteString("stack", e.stack))
		panic(fmt.Sprintf("a part of a job: %v", e.panicked))
	}
	if e.run == nil {
		c.digested = c.digested || e.digested && e.err == nil
		return e.err
	}
	complete := e.run.Release()
	c.blame(e.run.Blamed())
	s := e.source
	c.running--
	s.active--
	if age := time.Since(c.flights[e.run].began).Seconds(); age > 0 {
		s.rate = float64(e.run.Added()) / age
	}
	delete(c.flights, e.run)
	if e.err == nil {
		s.idle = append(s.idle, e.line)
	} else {
		e.line.Close()
	}
	if e.run.Added() > 0 {
		s.failing = false
	}
	switch {
	case c.ctx.Err() != nil || complete && (e.err == nil || errors.Is(e.err, store.ErrRunDone)):
		return nil
	case errors.Is(e.err, errRelieved):
		return nil
	case errors.Is(e.err, store.ErrNoRanges):
		s.whole = true
		return nil
	case errors.Is(e.err, store.ErrStale):
		c.interrupted(e.err, 0)
		return nil
	case e.err == nil:
		e.err = store.ErrTooShort
	}
	return c.failed(s, e.err)
}

// failed decides about a source after a failure of one of its runs. A fault of this machine ends the download.
func (c *chunked) failed(s *source, err error) error {
	if local(err) {
		return err
	}
	if s.out != nil {
		return nil
	}
	failure := (*download.Error)(nil)
	if !errors.As(err, &failure) || failure.Permanent {
		return c.leaveOut(s, err)
	}
	if !s.failing {
		s.failing = true
		s.pauses.Reset()
	}
	pause, patient := s.pauses.next()
	if !patient || failure.RetryAfter > longestWait {
		return c.leaveOut(s, err)
	}
	pause = max(pause, failure.RetryAfter)
	s.until = time.Now().Add(pause)
	c.interrupted(err, pause)
	return nil
}

func (c *chunked) leaveOut(s *source, err error) error {
	s.out = err
	c.mirrorLeftOut(s.url, s.number, err)
	return nil
}

// blame leaves out the mirrors whose part of a mixed chunk was wrong.
func (c *chunked) blame(urls []string) {
	for _, s := range c.sources {
		if s.out == nil && slices.Contains(urls, s.url) {
			_ = c.leaveOut(s, &store.Error{Reason: messages.ReasonDigestMismatch})
		}
	}
}

func (c *chunked) close() {
	for len(c.ended) > 0 {
		e := <-c.ended
		if e.run != nil {
			e.run.Release()
			e.line.Close()
		}
	}
	for _, s := range c.sources {
		for _, line := range s.idle {
			line.Close()
		}
	}
}
