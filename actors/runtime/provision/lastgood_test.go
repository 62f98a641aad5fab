//go:build unix

package provision

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"companion/adapters/runtime/download"
	"companion/messages"
)

// M13: after a restart during an upgrade, the last known good pair is offered at once, regardless of the newer model.
func TestLastGoodIsOfferedAtOnce(t *testing.T) {
	for name, second := range map[string]script{
		"slow": func(ctx context.Context, _ int, _ download.Request, _ download.Sink) error {
			<-ctx.Done()
			return context.Cause(ctx)
		},
		"wrong bytes": func(_ context.Context, _ int, _ download.Request, sink download.Sink) error {
			return deliver(sink, 0, modelBytes)
		},
		"unreachable": func(context.Context, int, download.Request, download.Sink) error { return failing(false) },
	} {
		for _, mayFetch := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := &scripted{}
					d.play = func(ctx context.Context, n int, req download.Request, sink download.Sink) error {
						if n == 1 {
							return deliver(sink, 0, modelBytes)
						}
						return second(ctx, n, req, sink)
					}
					h := newHarness(t, d)
					unpinned(t, h)
					h.start()
					h.inbox <- messages.Want{Model: gemma(), MayFetch: true}
					h.verified()
					h.stop()
					h.start()
					restarted := time.Now()
					h.inbox <- messages.Want{Model: newer(), GoodModel: gemma(), MayFetch: mayFetch}
					for n := 0; ; n++ {
						m := <-h.lifecycle
						if n > 3 {
							t.Fatalf("got %#v after %d messages, want the last known good pair", m, n)
						}
						if v, ok := m.(messages.ArtifactsVerified); ok {
							if !v.LastGood || v.Model.SHA256 != gemma().SHA256 {
								t.Fatalf("got %+v, want the last known good pair", v)
							}
							break
						}
						if l, ok := m.(messages.IntegrityLost); !ok || l.SHA256 != newer().SHA256 {
							t.Fatalf("got %#v, want only losses of the newer model", m)
						}
					}
					if took := time.Since(restarted); took != 0 {
						t.Errorf("got the offer after %v, want at once", took)
					}
					h.stop()
				})
			})
		}
	}
}

// M13: a pair that is both wanted and last known good is offered as both.
func TestWantedIsLastGood(t *testing.T) {
	server, h := fetchHarness(t)
	m, r := server.model("g", modelBytes), server.runtime(t)
	h.start()
	h.inbox <- messages.Want{Model: m, Runtime: r, GoodModel: m, GoodRuntime: r, MayFetch: true}
	if v := h.verified(); !v.LastGood {
		t.Fatalf("first: got %+v, want the last known good pair", v)
	}
	if v := h.verified(); v.LastGood || v.Model.SHA256 != m.SHA256 {
		t.Fatalf("got %+v, want the wanted pair", v)
	}
}

// M1, M13: without a wanted pair, such as before the manifest can be read, the last known good pair is offered alone.
func TestLastGoodAlone(t *testing.T) {
	server, h := fetchHarness(t)
	m, r := server.model("g", modelBytes), server.runtime(t)
	h.start()
	h.inbox <- messages.Want{Model: m, Runtime: r, MayFetch: true}
	h.verified()
	h.inbox <- messages.Want{GoodModel: m, GoodRuntime: r, FetchRefused: messages.ReasonManifestUnreachable}
	if v := h.verified(); !v.LastGood {
		t.Fatalf("got %+v, want the last known good pair", v)
	}
	if len(h.lifecycle) != 0 {
		t.Fatalf("got another message %#v, want none", <-h.lifecycle)
	}
}

// M13: the last known good pair is never fetched, and its absence is not a failure.
func TestLastGoodIsGone(t *testing.T) {
	server, h := fetchHarness(t)
	m, r, gone := server.model("g", modelBytes), server.runtime(t), server.model("gone", newerBytes)
	h.start()
	h.inbox <- messages.Want{Model: m, Runtime: r, GoodModel: gone, GoodRuntime: r, MayFetch: true}
	if v := h.verified(); v.LastGood {
		t.Fatalf("got %+v, want the wanted pair", v)
	}
	if n := server.asked("/m/gone"); n != 0 {
		t.Fatalf("got %d requests for the last known good model, want none", n)
	}
}
