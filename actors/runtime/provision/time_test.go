//go:build unix

package provision

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"companion/adapters/artifact"
	"companion/adapters/runtime/download"
	"companion/adapters/runtime/store"
	"companion/messages"
)

// script is a Downloader whose every transfer a test writes.
type script func(ctx context.Context, n int, req download.Request, sink download.Sink) error

type scripted struct {
	play script
	mu   sync.Mutex
	at   []time.Time
}

func (s *scripted) Fetch(ctx context.Context, req download.Request, sink download.Sink) error {
	s.mu.Lock()
	s.at = append(s.at, time.Now())
	n := len(s.at)
	s.mu.Unlock()
	return s.play(ctx, n, req, sink)
}

// tries is when the transfers began.
func (s *scripted) tries() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.at)
}

func deliver(sink download.Sink, offset int64, data []byte) error {
	if err := sink.Begin(offset, `"one"`); err != nil {
		return err
	}
	_, err := sink.Write(data)
	return err
}

func gemma() messages.Artifact {
	return messages.Artifact{
		Name: "g", Version: "1", Kind: messages.KindModel, URLs: []string{"https://models.example/m/g"}, Origins: []string{"https://models.example"},
		SHA256: sha256.Sum256(modelBytes), Size: int64(len(modelBytes)),
	}
}

func failing(permanent bool) error {
	return &download.Error{Reason: messages.ReasonTransferFailed, Permanent: permanent}
}

// unpinned lets a test be about the model alone.
func unpinned(t *testing.T, h *house) {
	t.Helper()
	h.deps.Unpinned = filepath.Join(t.TempDir(), "llama-server")
	must(t, os.WriteFile(h.deps.Unpinned, []byte("#!"), 0o700))
}

// M8: transient failures are tried again with growing pauses until patience ends, and then, because it is
// still wanted, after a longer one; permanent ones are not.
func TestRetrySchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var works atomic.Bool
		d := &scripted{play: func(_ context.Context, _ int, _ download.Request, sink download.Sink) error {
			if works.Load() {
				return deliver(sink, 0, modelBytes)
			}
			return failing(false)
		}}
		h := newHouse(t, d)
		unpinned(t, h)
		h.start()
		began := time.Now()
		h.inbox <- messages.Want{Model: gemma(), MayFetch: true}
		if got, want := <-h.lifecycle, loss(gemma(), messages.ReasonTransferFailed); got != want {
			t.Fatalf("told %#v", got)
		}
		if took := time.Since(began); took < patience/2 || took > patience {
			t.Errorf("gave up after %v", took)
		}
		// Half a second, times 1.5 each, up to 30 s, each give or take a half, for two minutes.
		at := d.tries()
		if n := len(at); n < 6 || n > 20 {
			t.Errorf("%d tries", n)
		}
		for i := 1; i < len(at); i++ {
			if pause := at[i].Sub(at[i-1]); pause < 250*time.Millisecond || pause > 45*time.Second {
				t.Errorf("pause %d is %v", i, pause)
			}
		}
		works.Store(true)
		gaveUp := time.Now()
		if _, ok := (<-h.lifecycle).(messages.ArtifactsVerified); !ok {
			t.Fatal("not tried again")
		}
		if pause := time.Since(gaveUp); pause < 15*time.Second || pause > 45*time.Second {
			t.Errorf("tried again after %v", pause)
		}
		h.stop()
	})
}

func TestPermanentIsNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &scripted{play: func(context.Context, int, download.Request, download.Sink) error { return failing(true) }}
		h := newHouse(t, d)
		unpinned(t, h)
		h.start()
		reply := make(chan messages.Reason, 1)
		h.inbox <- messages.Fetch{Artifact: gemma(), Reply: reply}
		if r := <-reply; r != messages.ReasonTransferFailed || len(d.tries()) != 1 {
			t.Fatalf("%s after %d tries", r, len(d.tries()))
		}
		// Verification failures neither, not even much later (M8).
		d.play = func(_ context.Context, _ int, _ download.Request, sink download.Sink) error {
			return deliver(sink, 0, bytes.Repeat([]byte("x"), len(modelBytes)))
		}
		h.inbox <- messages.Want{Model: gemma(), MayFetch: true}
		if got, want := <-h.lifecycle, loss(gemma(), messages.ReasonDigestMismatch); got != want {
			t.Fatalf("told %#v", got)
		}
		time.Sleep(24 * time.Hour)
		if len(d.tries()) != 2 {
			t.Fatalf("%d tries", len(d.tries()))
		}
		h.stop()
	})
}

// A transfer that is cut again and again but moves is not given up.
func TestProgressKeepsPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const piece = 4000
		d := &scripted{play: func(_ context.Context, _ int, req download.Request, sink download.Sink) error {
			time.Sleep(20 * time.Second)
			end := min(req.Offset+piece, int64(len(modelBytes)))
			if err := deliver(sink, req.Offset, modelBytes[req.Offset:end]); err != nil || end == int64(len(modelBytes)) {
				return err
			}
			return failing(false)
		}}
		h := newHouse(t, d)
		unpinned(t, h)
		h.start()
		h.inbox <- messages.Want{Model: gemma(), MayFetch: true}
		if got, ok := (<-h.lifecycle).(messages.ArtifactsVerified); !ok {
			t.Fatalf("told %#v", got)
		}
		if n := len(d.tries()); n != len(modelBytes)/piece {
			t.Fatalf("%d transfers", n)
		}
		h.stop()
	})
}

// M11: while bytes come, progress is published at least once a second, with the right rate; afterwards
// the list is empty and nothing wakes up.
func TestProgressIsPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const perSecond = 20_000
		d := &scripted{play: func(_ context.Context, _ int, _ download.Request, sink download.Sink) error {
			if err := sink.Begin(0, `"one"`); err != nil {
				return err
			}
			for at := 0; at < len(modelBytes); at += perSecond / 10 {
				time.Sleep(100 * time.Millisecond)
				if _, err := sink.Write(modelBytes[at:min(at+perSecond/10, len(modelBytes))]); err != nil {
					return err
				}
			}
			return nil
		}}
		h := newHouse(t, d)
		unpinned(t, h)
		h.start()
		h.inbox <- messages.Want{Model: gemma(), MayFetch: true}
		seconds := len(modelBytes) / perSecond
		for i := range seconds - 1 {
			_, changed := h.deps.Transfers.Next()
			select {
			case <-changed:
			case <-time.After(time.Second):
				t.Fatalf("nothing published in second %d", i)
			}
			time.Sleep(time.Second - time.Millisecond)
			if i < 4 {
				continue
			}
			list := h.deps.Transfers.Get()
			if len(list) != 1 {
				t.Fatalf("published %+v", list)
			}
			got := list[0]
			left := (got.Total - got.Bytes) / perSecond
			if got.Name != "g" || got.Total != int64(len(modelBytes)) || got.BytesPerSecond < perSecond*8/10 || got.BytesPerSecond > perSecond*12/10 ||
				got.SecondsLeft < left-2 || got.SecondsLeft > left+3 {
				t.Errorf("second %d: %+v", i, got)
			}
		}
		<-h.lifecycle
		synctest.Wait()
		list, changed := h.deps.Transfers.Next()
		if list == nil || len(list) != 0 {
			t.Fatalf("published at the end: %+v", list)
		}
		select {
		case <-changed:
			t.Fatal("published while nothing runs")
		case <-time.After(time.Hour):
		}
		h.stop()
	})
}

// A9: a panic beside the loop is the actor's, ends everything it started, answers who waits, and a new
// start begins from what is on disk.
func TestPanic(t *testing.T) {
	d := &scripted{play: func(_ context.Context, n int, req download.Request, sink download.Sink) error {
		if n > 1 {
			return deliver(sink, req.Offset, modelBytes[req.Offset:])
		}
		if err := deliver(sink, 0, modelBytes[:100_000]); err != nil {
			return err
		}
		panic("a fault in the adapter")
	}}
	h := newHouse(t, d)
	unpinned(t, h)
	reply := make(chan messages.Reason, 1)
	h.inbox <- messages.Fetch{Artifact: gemma(), Reply: reply}
	func() {
		defer func() {
			if p := recover(); p == nil {
				t.Fatal("no panic reached the supervisor")
			}
		}()
		_ = New(h.deps).Serve(t.Context())
	}()
	if r := <-reply; r != messages.ReasonTransferFailed {
		t.Fatalf("answered %s", r)
	}
	for len(h.lifecycle) > 0 {
		<-h.lifecycle // of the first start
	}
	h.start()
	h.inbox <- messages.Want{Model: gemma(), MayFetch: true}
	h.verified()
	if len(d.tries()) != 2 {
		t.Fatalf("%d transfers", len(d.tries()))
	}
}

// A shutdown in the middle of a transfer keeps its bytes.
func TestStopKeepsBytes(t *testing.T) {
	reached := make(chan struct{})
	d := &scripted{play: func(ctx context.Context, _ int, _ download.Request, sink download.Sink) error {
		if err := deliver(sink, 0, modelBytes[:100_000]); err != nil {
			return err
		}
		close(reached)
		<-ctx.Done()
		return context.Cause(ctx)
	}}
	h := newHouse(t, d)
	h.start()
	reply := make(chan messages.Reason, 1)
	h.inbox <- messages.Fetch{Artifact: gemma(), Reply: reply}
	<-reached
	h.stop()
	if r := <-reply; r != messages.ReasonTransferFailed {
		t.Fatalf("answered %s", r)
	}
	if held := h.deps.Store.Held(t.Context(), gemma()); held.PartialBytes != 100_000 {
		t.Fatalf("held %+v", held)
	}
}

// Every reason that an adapter gives arrives as it is.
func TestReasonOf(t *testing.T) {
	for want, err := range map[messages.Reason]error{
		messages.ReasonOK:             nil,
		messages.ReasonSignInNeeded:   fmt.Errorf("x: %w", store.ErrNotHere),
		messages.ReasonBadStatus:      fmt.Errorf("x: %w", &download.Error{Reason: messages.ReasonBadStatus}),
		messages.ReasonNoSpace:        errors.Join(errors.New("x"), &store.Error{Reason: messages.ReasonNoSpace}),
		messages.ReasonMalformedSpec:  &artifact.Error{Reason: messages.ReasonMalformedSpec},
		messages.ReasonTransferFailed: errors.New("x"),
	} {
		if got := reasonOf(err); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
}
