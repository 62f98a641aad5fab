//go:build unix

package provision

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"companion/adapters/runtime/download"
	"companion/messages"
)

var newerBytes = bytes.Repeat([]byte("newer   "), 40_000)

// newer is another version of the model, under the same name.
func newer() messages.Artifact {
	a := gemma()
	a.Version, a.SHA256 = "2", sha256.Sum256(newerBytes)
	return a
}

// partials returns the paths of the partial files.
func (h *harness) partials() []string {
	h.t.Helper()
	paths, err := filepath.Glob(filepath.Join(h.dir, "partial", "*.part"))
	must(h.t, err)
	return paths
}

// M8: an outage of any length, with any number of mirrors, loses no byte on disk. Afterwards the transfer continues at the
// same offset, from the first mirror that answers.
func TestOutageKeepsBytes(t *testing.T) {
	const have = 288_000
	for name, urls := range map[string][]string{
		"one":   {"https://models.example/m/g"},
		"two":   {"https://models.example/m/g", "https://models.example/m/mirror"},
		"three": {"https://models.example/m/g", "https://models.example/m/mirror", "https://models.example/m/third"},
	} {
		for back := range urls {
			t.Run(name+" mirrors", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var down atomic.Bool
					down.Store(true)
					fetched := 0
					d := &scripted{}
					d.play = func(_ context.Context, n int, req download.Request, sink download.Sink) error {
						if n == 1 {
							return errors.Join(deliver(sink, 0, modelBytes[:have]), failing(false))
						}
						if down.Load() || req.URL != urls[back] {
							return failing(false)
						}
						fetched = len(modelBytes) - int(req.Offset)
						return deliver(sink, req.Offset, modelBytes[req.Offset:])
					}
					h := newHarness(t, d)
					unpinned(t, h)
					a := gemma()
					a.URLs = urls
					h.start()
					h.inbox <- messages.Want{Model: a, MayFetch: true}
					if got, want := <-h.lifecycle, loss(a, messages.ReasonTransferFailed); got != want {
						t.Fatalf("got %#v, want %#v", got, want)
					}
					if held := h.deps.Store.Held(t.Context(), a).PartialBytes; held != have {
						t.Fatalf("after the outage: got %d bytes on disk, want %d", held, have)
					}
					down.Store(false)
					for {
						if _, ok := (<-h.lifecycle).(messages.ArtifactsVerified); ok {
							break
						}
					}
					if fetched != len(modelBytes)-have {
						t.Errorf("got %d bytes fetched, want %d", fetched, len(modelBytes)-have)
					}
					h.stop()
				})
			})
		}
	}
}

// M8: for any damage to the partial file by a crash or power loss, the transfer ends with the right file, after at most one
// more transfer from zero.
func TestDamagedPartialFile(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, f *os.File){
		"hole": func(t *testing.T, f *os.File) {
			_, err := f.WriteAt(make([]byte, 4096), 100_000)
			must(t, err)
		},
		"lost tail": func(t *testing.T, f *os.File) { must(t, f.Truncate(50_000)) },
		"empty":     func(t *testing.T, f *os.File) { must(t, f.Truncate(0)) },
		"tail of zeros": func(t *testing.T, f *os.File) {
			must(t, f.Truncate(150_000), f.Truncate(250_000))
		},
		"complete but wrong": func(t *testing.T, f *os.File) { must(t, f.Truncate(int64(len(modelBytes)))) },
		"too long":           func(t *testing.T, f *os.File) { must(t, f.Truncate(int64(len(modelBytes))+1)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &scripted{}
				d.play = func(ctx context.Context, n int, req download.Request, sink download.Sink) error {
					if n == 1 {
						if err := deliver(sink, 0, modelBytes[:200_000]); err != nil {
							return err
						}
						<-ctx.Done()
						return context.Cause(ctx)
					}
					return deliver(sink, req.Offset, modelBytes[req.Offset:])
				}
				h := newHarness(t, d)
				unpinned(t, h)
				h.start()
				h.inbox <- messages.Want{Model: gemma(), MayFetch: true}
				synctest.Wait()
				h.stop()
				parts := h.partials()
				if len(parts) != 1 {
					t.Fatalf("partial files: got %v, want one", parts)
				}
				f, err := os.OpenFile(parts[0], os.O_WRONLY, 0)
				must(t, err)
				damage(t, f)
				must(t, f.Close())
				h.start()
				h.inbox <- messages.Want{Model: gemma(), MayFetch: true}
				if got, ok := (<-h.lifecycle).(messages.ArtifactsVerified); !ok {
					t.Fatalf("got %#v, want ArtifactsVerified", got)
				}
				if n := len(d.tries()); n > 3 {
					t.Errorf("got %d transfers, want at most 3", n)
				}
				h.stop()
			})
		})
	}
}

// M1: transfers end as soon as the manifest stops allowing them, and their bytes are kept. A waiting pull is answered with
// the reason.
func TestTransferEndsWithManifest(t *testing.T) {
	for name, want := range map[string]messages.Want{
		"expired, in grace": {Model: gemma(), FetchRefused: messages.ReasonManifestExpired},
		"expired":           {FetchRefused: messages.ReasonManifestExpired},
		"withdrawn":         {FetchRefused: messages.ReasonNoSuchTarget},
		"signed out":        {Model: gemma(), FetchRefused: messages.ReasonSignInNeeded},
	} {
		for _, pulled := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ended := make(chan time.Duration, 1)
					d := &scripted{}
					d.play = func(ctx context.Context, _ int, _ download.Request, sink download.Sink) error {
						if err := deliver(sink, 0, modelBytes[:1000]); err != nil {
							return err
						}
						began := time.Now()
						select {
						case <-time.After(time.Hour):
						case <-ctx.Done():
						}
						ended <- time.Since(began)
						return errors.Join(context.Cause(ctx))
					}
					h := newHarness(t, d)
					unpinned(t, h)
					h.start()
					reply := make(chan messages.Reason, 1)
					if pulled {
						h.inbox <- messages.Fetch{Artifact: gemma(), Reply: reply}
					} else {
						h.inbox <- messages.Want{Model: gemma(), MayFetch: true}
					}
					synctest.Wait()
					h.inbox <- want
					if took := <-ended; took != 0 {
						t.Errorf("end of the transfer: got after %v, want at once", took)
					}
					h.lost(messages.IntegrityLost{Artifact: want.Model.Name, SHA256: want.Model.SHA256, Reason: want.FetchRefused})
					if pulled {
						if r := <-reply; r != want.FetchRefused {
							t.Errorf("pull: got %q, want %q", r, want.FetchRefused)
						}
					}
					if held := h.deps.Store.Held(t.Context(), gemma()).PartialBytes; held != 1000 {
						t.Errorf("got %d bytes on disk, want 1000", held)
					}
					h.stop()
				})
			})
		}
	}
}

// M8, T6: after a mirror with wrong bytes, another length or a redirect to another place, the next mirror serves the right
// bytes. The bad mirror is excluded and named in the log.
func TestWrongMirror(t *testing.T) {
	wrong := bytes.Repeat([]byte("x"), len(modelBytes))
	for name, first := range map[string]script{
		"other bytes": func(_ context.Context, _ int, _ download.Request, sink download.Sink) error {
			return deliver(sink, 0, wrong)
		},
		"too few": func(_ context.Context, _ int, _ download.Request, sink download.Sink) error {
			return deliver(sink, 0, modelBytes[:1000])
		},
		"too many": func(_ context.Context, _ int, _ download.Request, sink download.Sink) error {
			return deliver(sink, 0, append(bytes.Clone(modelBytes), 'x'))
		},
		"another length announced": func(context.Context, int, download.Request, download.Sink) error {
			return &download.Error{Reason: messages.ReasonSizeMismatch, Permanent: true}
		},
		"redirect elsewhere": func(context.Context, int, download.Request, download.Sink) error {
			return &download.Error{Reason: messages.ReasonSourceNotAllowed, Permanent: true}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &scripted{}
				d.play = func(ctx context.Context, n int, req download.Request, sink download.Sink) error {
					if req.URL == "https://bad.example/g" {
						return first(ctx, n, req, sink)
					}
					return deliver(sink, req.Offset, modelBytes[req.Offset:])
				}
				h := newHarness(t, d)
				unpinned(t, h)
				a := gemma()
				a.URLs = []string{"https://bad.example/g", a.URLs[0]}
				a.Origins = append(a.Origins, "https://bad.example")
				h.start()
				h.inbox <- messages.Want{Model: a, MayFetch: true}
				if got, ok := (<-h.lifecycle).(messages.ArtifactsVerified); !ok {
					t.Fatalf("got %#v, want ArtifactsVerified", got)
				}
				if n := len(d.tries()); n != 2 {
					t.Errorf("got %d transfers, want 2", n)
				}
				left := h.logs.FilterMessage("mirror left out").All()
				if len(left) != 1 || left[0].ContextMap()["mirror"] != "bad.example" {
					t.Errorf("log: got %v, want one entry that excludes bad.example", left)
				}
				h.stop()
			})
		})
	}
}

// M8, T6: a mirror that cuts every transfer and then serves wrong bytes is excluded after one restart from zero, so that it
// cannot cause endless transfers.
func TestCutsAndWrongBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &scripted{}
		d.play = func(_ context.Context, _ int, req download.Request, sink download.Sink) error {
			if req.Offset == 0 {
				return errors.Join(deliver(sink, 0, modelBytes[:1000]), failing(false))
			}
			return deliver(sink, req.Offset, bytes.Repeat([]byte("x"), len(modelBytes)-int(req.Offset)))
		}
		h := newHarness(t, d)
		unpinned(t, h)
		h.start()
		h.inbox <- messages.Want{Model: gemma(), MayFetch: true}
		if got, want := <-h.lifecycle, loss(gemma(), messages.ReasonDigestMismatch); got != want {
			t.Fatalf("got %#v, want %#v", got, want)
		}
		if n := len(d.tries()); n != 4 {
			t.Errorf("got %d transfers, want 4: cut and wrong, twice", n)
		}
		h.stop()
	})
}

// M8: Retry-After is honoured, unless another mirror can be tried meanwhile.
func TestRetryAfter(t *testing.T) {
	for _, c := range []struct {
		urls  int
		after time.Duration
		want  time.Duration // of the pause before the second request
	}{{1, time.Minute, time.Minute}, {1, 50 * time.Minute, 50 * time.Minute}, {2, 50 * time.Minute, 0}} {
		synctest.Test(t, func(t *testing.T) {
			d := &scripted{}
			d.play = func(_ context.Context, n int, req download.Request, sink download.Sink) error {
				if n == 1 {
					return &download.Error{Reason: messages.ReasonBadStatus, Status: 429, RetryAfter: c.after}
				}
				return deliver(sink, req.Offset, modelBytes[req.Offset:])
			}
			h := newHarness(t, d)
			unpinned(t, h)
			a := gemma()
			for len(a.URLs) < c.urls {
				a.URLs = append(a.URLs, a.URLs[0]+"/mirror")
			}
			h.start()
			h.inbox <- messages.Want{Model: a, MayFetch: true}
			<-h.lifecycle
			at := d.tries()
			if pause := at[1].Sub(at[0]); len(at) != 2 || pause != c.want {
				t.Errorf("%d mirrors, Retry-After %v: got the second request after %v, want %v", c.urls, c.after, pause, c.want)
			}
			h.stop()
		})
	}
}

// M15: artifacts that are in Keep, wanted, last known good, offered or in a running job are kept; others are removed. The
// regular clean-up waits until a pair has become ready.
func TestPruneKeepsWhatIsUsed(t *testing.T) {
	server, h := fetchHarness(t)
	h.start()
	r := server.runtime(t)
	good, wanted := server.model("good", modelBytes), server.model("wanted", newerBytes)
	named, unused := server.model("named", []byte("named in the manifest")), server.model("unused", []byte("an old version"))
	for _, a := range []messages.Artifact{r, good, named, unused} {
		reply := make(chan messages.Reason, 1)
		h.inbox <- messages.Fetch{Artifact: a, Reply: reply}
		if reason := <-reply; reason != messages.ReasonOK {
			t.Fatalf("fetching %s: got %s, want ok", a.Name, reason)
		}
	}
	h.inbox <- messages.Want{Model: wanted, Runtime: r, GoodModel: good, GoodRuntime: r, MayFetch: true}
	h.verified()
	h.verified()
	here := func() (all string) {
		for _, a := range []messages.Artifact{good, wanted, named, unused} {
			if h.deps.Store.Held(t.Context(), a).Verified {
				all += a.Name + " "
			}
		}
		return all
	}
	prune := func(dryRun bool) messages.PruneResult {
		reply := make(chan messages.PruneResult, 1)
		h.inbox <- messages.Prune{Keep: [][32]byte{named.SHA256}, DryRun: dryRun, Reply: reply}
		return <-reply
	}
	h.inbox <- messages.Prune{Keep: [][32]byte{named.SHA256}}
	if got := prune(true); len(got.Items) != 1 || got.Reason != messages.ReasonOK {
		t.Fatalf("dry run: got %+v, want one item", got)
	}
	// A pair that was offered before may run until the next pair becomes ready.
	h.inbox <- messages.Want{Model: named, Runtime: r, MayFetch: true}
	h.verified()
	if got := prune(true); len(got.Items) != 1 {
		t.Fatalf("dry run after a newer Want: got %+v, want one item", got)
	}
	h.inbox <- messages.Want{Model: wanted, Runtime: r, GoodModel: good, GoodRuntime: r, MayFetch: true}
	h.verified()
	h.verified()
	if got, want := here(), "good wanted named unused "; got != want {
		t.Fatalf("on disk before a pair became ready: got %q, want %q", got, want)
	}
	h.inbox <- messages.PairReady{Model: wanted.SHA256, Runtime: r.SHA256}
	h.inbox <- messages.Prune{Keep: [][32]byte{named.SHA256}}
	if got := prune(false); len(got.Items) != 0 {
		t.Fatalf("after the regular clean-up: got %+v, want nothing left to remove", got)
	}
	if got, want := here(), "good wanted named "; got != want {
		t.Fatalf("on disk: got %q, want %q", got, want)
	}
}
