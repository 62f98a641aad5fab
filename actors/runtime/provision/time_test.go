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

// script is the function with which a test implements a transfer.
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

// tries returns the start times of the transfers.
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

// unpinned configures an unpinned binary, so that only the model is fetched.
func unpinned(t *testing.T, h *harness) {
	t.Helper()
	h.deps.Unpinned = filepath.Join(t.TempDir(), "llama-server")
	must(t, os.WriteFile(h.deps.Unpinned, []byte("#!"), 0o700))
}

// M8: after a transient failure the transfer is tried again with growing pauses until patience ends, and then after a longer
// one, because the artifact is still wanted. After a permanent failure it is not tried again.
func TestRetrySchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var works atomic.Bool
		d := &scripted{play: func(_ context.Context, _ int, _ download.Request, sink download.Sink) error {
			if works.Load() {
				return deliver(sink, 0, modelBytes)
			}
			return failing(false)
		}}
		h := newHarness(t, d)
		unpinned(t, h)
		h.start()
		began := time.Now()
		h.inbox <- messages.Want{Model: gemma(), MayFetch: true}
		if got, want := <-h.lifecycle, loss(gemma(), messages.ReasonTransferFailed); got != want {
			t.Fatalf("got %#v, want %#v", got, want)
		}
		if took := time.Since(began); took < patience/2 || took > patience {
			t.Errorf("got the failure after %v, want %v to %v", took, patience/2, patience)
		}
		// The pauses grow from 0.5 s by a factor of 1.5 up to 30 s, each ± 50 %, for two minutes.
		at := d.tries()
		if n := len(at); n < 6 || n > 20 {
			t.Errorf("got %d transfers, want 6 to 20", n)
		}
		for i := 1; i < len(at); i++ {
			if pause := at[i].Sub(at[i-1]); pause < 250*time.Millisecond || pause > 45*time.Second {
				t.Errorf("pause %d: got %v, want 250ms to 45s", i, pause)
			}
		}
		works.Store(true)
		gaveUp := time.Now()
		if _, ok := (<-h.lifecycle).(messages.ArtifactsVerified); !ok {
			t.Fatal("after the longer pause: got another message, want ArtifactsVerified")
		}
		if pause := time.Since(gaveUp); pause < 15*time.Second || pause > 45*time.Second {
			t.Errorf("longer pause: got %v, want 15s to 45s", pause)
		}
		h.stop()
	})
}

func TestPermanentIsNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &scripted{play: func(context.Context, int, download.Request, download.Sink) error { return failing(true) }}
		h := newHarness(t, d)
		unpinned(t, h)
		h.start()
		reply := make(chan messages.Reason, 1)
		h.inbox <- messages.Fetch{Artifact: gemma(), Reply: reply}
		if r := <-reply; r != messages.ReasonTransferFailed || len(d.tries()) != 1 {
			t.Fatalf("got %s after %d transfers, want transfer_failed after 1", r, len(d.tries()))
		}
		// A verification failure is not tried again either, even after a long time (M8).
		d.play = func(_ context.Context, _ int, _ download.Request, sink download.Sink) error {
			return deliver(sink, 0, bytes.Repeat([]byte("x"), len(modelBytes)))
		}
		h.inbox <- messages.Want{Model: gemma(), MayFetch: true}
		if got, want := <-h.lifecycle, loss(gemma(), messages.ReasonDigestMismatch); got != want {
			t.Fatalf("got %#v, want %#v", got, want)
		}
		time.Sleep(24 * time.Hour)
		if len(d.tries()) != 2 {
			t.Fatalf("got %d transfers, want 2", len(d.tries()))
		}
		h.stop()
	})
}

// A transfer that is cut repeatedly but makes progress does not fail.
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
		h := newHarness(t, d)
		unpinned(t, h)
		h.start()
		h.inbox <- messages.Want{Model: gemma(), MayFetch: true}
		if got, ok := (<-h.lifecycle).(messages.ArtifactsVerified); !ok {
			t.Fatalf("got %#v, want ArtifactsVerified", got)
		}
		if n := len(d.tries()); n != len(modelBytes)/piece {
			t.Fatalf("got %d transfers, want %d", n, len(modelBytes)/piece)
		}
		h.stop()
	})
}

// M8, T6: a first mirror that breaks off after each byte, right or wrong, does not keep the second one from being asked.
func TestTrickleIsNoProgress(t *testing.T) {
	for _, first := range [][]byte{modelBytes, bytes.Repeat([]byte("x"), len(modelBytes))} {
		synctest.Test(t, func(t *testing.T) {
			m := gemma()
			m.URLs = []string{"https://models.example/m/trickle", "https://models.example/m/g"}
			d := &scripted{play: func(_ context.Context, _ int, req download.Request, sink download.Sink) error {
				if req.URL == m.URLs[1] {
					return deliver(sink, req.Offset, modelBytes[req.Offset:])
				}
				if err := deliver(sink, req.Offset, first[req.Offset:req.Offset+1]); err != nil {
					return err
				}
				return failing(false)
			}}
			h := newHarness(t, d)
			unpinned(t, h)
			h.start()
			began := time.Now()
			h.inbox <- messages.Want{Model: m, MayFetch: true}
			select {
			case got := <-h.lifecycle:
				if _, ok := got.(messages.ArtifactsVerified); !ok {
					t.Errorf("got %#v, want ArtifactsVerified", got)
				}
			case <-time.After(2 * patience):
				t.Errorf("got nothing after %d transfers in %s, want the model from the second mirror", len(d.tries()), time.Since(began))
			}
			h.stop()
		})
	}
}

// M11: during a transfer, progress is published at least once a second, with the right rate; afterwards the list is empty
// and no timer runs.
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
		h := newHarness(t, d)
		unpinned(t, h)
		h.start()
		h.inbox <- messages.Want{Model: gemma(), MayFetch: true}
		seconds := len(modelBytes) / perSecond
		for i := range seconds - 1 {
			_, changed := h.deps.Transfers.Next()
			select {
			case <-changed:
			case <-time.After(time.Second):
				t.Fatalf("second %d: got no progress, want it published", i)
			}
			time.Sleep(time.Second - time.Millisecond)
			if i < 4 {
				continue
			}
			list := h.deps.Transfers.Get()
			if len(list) != 1 {
				t.Fatalf("got %+v, want one transfer", list)
			}
			got := list[0]
			left := (got.Total - got.Bytes) / perSecond
			if got.Name != "g" || got.Total != int64(len(modelBytes)) || got.BytesPerSecond < perSecond*8/10 || got.BytesPerSecond > perSecond*12/10 ||
				got.SecondsLeft < left-2 || got.SecondsLeft > left+3 {
				t.Errorf("second %d: got %+v, want the right rate and about %d s left", i, got, left)
			}
		}
		<-h.lifecycle
		synctest.Wait()
		list, changed := h.deps.Transfers.Next()
		if list == nil || len(list) != 0 {
			t.Fatalf("at the end: got %+v, want an empty list", list)
		}
		select {
		case <-changed:
			t.Fatal("without a transfer: got a publication, want none")
		case <-time.After(time.Hour):
		}
		h.stop()
	})
}

// A9: a panic in a job ends the actor and all its jobs and answers the waiting requests; the next incarnation continues with
// the files on disk.
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
	h := newHarness(t, d)
	unpinned(t, h)
	reply := make(chan messages.Reason, 1)
	h.inbox <- messages.Fetch{Artifact: gemma(), Reply: reply}
	func() {
		defer func() {
			if p := recover(); p == nil {
				t.Fatal("Serve: got no panic, want one")
			}
		}()
		_ = New(h.deps).Serve(t.Context())
	}()
	if r := <-reply; r != messages.ReasonTransferFailed {
		t.Fatalf("got reply %s, want transfer_failed", r)
	}
	for len(h.lifecycle) > 0 {
		<-h.lifecycle // of the first start
	}
	h.start()
	h.inbox <- messages.Want{Model: gemma(), MayFetch: true}
	h.verified()
	if len(d.tries()) != 2 {
		t.Fatalf("got %d transfers, want 2", len(d.tries()))
	}
}

// A shutdown during a transfer keeps its bytes.
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
	h := newHarness(t, d)
	h.start()
	reply := make(chan messages.Reason, 1)
	h.inbox <- messages.Fetch{Artifact: gemma(), Reply: reply}
	<-reached
	h.stop()
	if r := <-reply; r != messages.ReasonTransferFailed {
		t.Fatalf("got reply %s, want transfer_failed", r)
	}
	if held := h.deps.Store.Held(t.Context(), gemma()); held.PartialBytes != 100_000 {
		t.Fatalf("got %+v, want 100000 bytes", held)
	}
}

// reasonOf returns every reason of an adapter unchanged.
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
			t.Errorf("%v: got %s, want %s", err, got, want)
		}
	}
}

// M9: a look at the disk that failed is repeated, also while nothing may be fetched and for the last known good pair. Wrong files
// were removed: looking again finds nothing.
func TestFailedLookIsRepeated(t *testing.T) {
	m := messages.Artifact{Name: "m", Kind: messages.KindModel, SHA256: digest{1}}
	r := messages.Artifact{Name: "r", Kind: messages.KindRuntime, SHA256: digest{2}}
	for _, test := range []struct {
		reason messages.Reason
		again  bool
	}{
		{messages.ReasonNoSpace, true},
		{messages.ReasonTransferFailed, true},
		{messages.ReasonInvalidModelPath, true},
		{messages.ReasonDigestMismatch, false},
		{messages.ReasonSizeMismatch, false},
	} {
		for what, want := range map[string]messages.Want{"wanted": {Model: m, Runtime: r}, "last good": {GoodModel: m, GoodRuntime: r}} {
			synctest.Test(t, func(t *testing.T) {
				s := &service{
					want: &want, known: map[digest]result{}, offered: map[digest]bool{},
					retry: time.NewTimer(time.Hour), pauses: newPauses(30*time.Second, 10*time.Minute),
				}
				s.retry.Stop()
				s.verdict(result{artifact: m, reason: test.reason, err: removed(&store.Error{Reason: test.reason})})
				select {
				case <-s.retry.C:
					if !test.again {
						t.Errorf("%s, %s: got another look, want none", what, test.reason)
					}
				case <-time.After(time.Minute):
					if test.again {
						t.Errorf("%s, %s: got no other look within a minute, want one", what, test.reason)
					}
				}
			})
		}
	}
}
