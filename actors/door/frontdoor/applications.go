package frontdoor

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"companion/adapters/door/apptoken"
	"companion/adapters/door/guard"
	"companion/messages"
)

// grant is one application token in use (L14). It outlives a reload of the file that leaves the token in it.
type grant struct {
	entry   apptoken.Entry
	rate    int
	window  *guard.Window
	counts  *applicationCounts
	revoked context.Context // ends with errRevoked
	revoke  context.CancelCauseFunc
}

// applicationCounts outlive restarts of the actor, because counters must not decrease.
type applicationCounts struct {
	requests atomic.Int64
	last     atomic.Int64 // nanoseconds since 1970
}

var errRevoked error = revokedError{}

type revokedError struct{}

func (revokedError) Error() string { return "the application token was revoked" }

// Reason is what a stream that ends by it says.
func (revokedError) Reason() messages.Reason { return messages.ReasonInvalidToken }

// expiry is a time as the guard compares it. A file can have times that nanoseconds since 1970 cannot tell, and 0 means never.
func expiry(at time.Time) int64 {
	switch {
	case at.Unix() <= 0:
		return 1
	case at.Unix() >= math.MaxInt64/int64(time.Second):
		return math.MaxInt64
	}
	return at.UnixNano()
}

// callers are the valid tokens and the grants of the applications that have them. It is immutable.
type callers struct {
	tokens  *guard.Tokens
	granted []*grant
}

func newCallers(user, probe messages.Secret, granted []*grant) *callers {
	applications := make([]guard.Application, len(granted))
	for i, g := range granted {
		applications[i] = guard.Application{Name: g.entry.Name, Digest: g.entry.Sum(), Window: g.window}
		if g.entry.Expires != nil {
			applications[i].Expires = expiry(*g.entry.Expires)
		}
	}
	return &callers{guard.NewTokens(user, probe, applications...), granted}
}

// grant returns the grant of a caller that is an application, or nil.
func (c *callers) grant(caller guard.Caller) *grant {
	a := c.tokens.Application(caller)
	if a == nil {
		return nil
	}
	for _, g := range c.granted {
		if g.entry.Name == a.Name {
			return g
		}
	}
	return nil
}

func (c *callers) views() []messages.ApplicationView {
	var all []messages.ApplicationView
	for _, g := range c.granted {
		v := messages.ApplicationView{Name: g.entry.Name, Expires: g.entry.Expires, RatePerMinute: g.rate, Requests: g.counts.requests.Load()}
		if last := g.counts.last.Load(); last != 0 {
			at := time.Unix(0, last).UTC()
			v.LastRequest = &at
		}
		all = append(all, v)
	}
	return all
}

// loadApplications reads the file of application tokens. A token that is no longer in it is revoked, which cancels
// the requests of its application. If the file cannot be read, no application token is valid.
func (l *life) loadApplications() messages.Reason {
	before := l.granted
	l.granted = nil
	reason := messages.ReasonOK
	var entries []apptoken.Entry
	if l.deps.TokensPath != "" {
		var err error
		if entries, err = apptoken.Load(l.deps.TokensPath); err != nil {
			l.deps.Log.Error("application tokens not read", zap.Error(err))
			reason = messages.ReasonInternalError
		}
	}
	for _, e := range entries {
		g := grantOf(before, e)
		if g == nil {
			g = &grant{entry: e, rate: e.Rate}
			if g.rate == 0 {
				g.rate = l.deps.Bounds.RatePerMinute
			}
			counts, _ := l.door.stats.applications.LoadOrStore(e.Digest, new(applicationCounts))
			g.counts = counts.(*applicationCounts)
			g.window = guard.NewWindow(g.rate, int64(time.Minute))
			g.revoked, g.revoke = context.WithCancelCause(context.Background())
		}
		l.granted = append(l.granted, g)
	}
	for _, g := range before {
		if grantOf(l.granted, g.entry) == nil {
			l.deps.Log.Info("application token ended", zap.String("application", g.entry.Name))
			g.revoke(errRevoked)
			l.door.stats.applications.Delete(g.entry.Digest)
		}
	}
	return reason
}

// grantOf returns the grant of an entry, or nil. The digest is compared too, because a name can be used again.
func grantOf(all []*grant, e apptoken.Entry) *grant {
	for _, g := range all {
		if g.entry.Digest == e.Digest && g.entry.Name == e.Name {
			return g
		}
	}
	return nil
}

// asCaller serves the request. A request of an application is counted, and is cancelled when its token is revoked.
func (v *visit) asCaller(serve func()) {
	if v.grant == nil {
		serve()
		return
	}
	v.grant.counts.requests.Add(1)
	v.grant.counts.last.Store(v.began.UnixNano())
	ctx, cancel := context.WithCancelCause(v.r.Context())
	defer cancel(nil)
	stop := context.AfterFunc(v.grant.revoked, func() { cancel(errRevoked) })
	defer stop()
	v.r = v.r.WithContext(ctx)
	serve()
}

// revoked reports whether the request's token was revoked while it waited or ran.
func (v *visit) revoked() bool { return v.grant != nil && v.grant.revoked.Err() != nil }
