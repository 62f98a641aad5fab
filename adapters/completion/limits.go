package completion

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// Limits bound the time and memory of a request. A zero field means its default.
type Limits struct {
	Connect   time.Duration // to a connection; 10 s
	FirstByte time.Duration // from the request to the head of the answer, which comes last unless streamed; 10 min
	Idle      time.Duration // between two pieces of an answer; 2 min
	Whole     time.Duration // from the request to the end of the answer; 30 min
	Answer    int64         // bytes of a whole answer; 8 MiB
	Stream    int64         // bytes of a streamed answer; 64 MiB
}

func (l Limits) withDefaults() Limits {
	l.Connect = nonZero(l.Connect, 10*time.Second)
	l.FirstByte = nonZero(l.FirstByte, 10*time.Minute)
	l.Idle = nonZero(l.Idle, 2*time.Minute)
	l.Whole = nonZero(l.Whole, 30*time.Minute)
	l.Answer = nonZero(l.Answer, 8<<20)
	l.Stream = nonZero(l.Stream, 64<<20)
	return l
}

func nonZero[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// limitError ends a request that passed a limit.
type limitError struct{ code, message string }

func (e *limitError) Error() string { return e.message }

// bounded applies Limits to each request, and counts the bytes of request bodies.
type bounded struct {
	next   http.RoundTripper
	limits Limits
}

// newTransport dials the target's socket or host. An HTTP proxy may carry TLS, never loopback text.
func newTransport(t Target, limits Limits) *http.Transport {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	dialer := &net.Dialer{Timeout: limits.Connect, KeepAlive: 30 * time.Second}
	transport.DialContext = dialer.DialContext
	if strings.HasPrefix(t.BaseURL, "http://") || t.Socket != "" {
		transport.Proxy = nil
	}
	if t.Socket != "" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", t.Socket)
		}
	}
	if dial := transport.DialContext; t.Confirm != nil {
		transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			if err := t.Confirm(ctx, conn); err != nil {
				_ = conn.Close()
				return nil, &unconfirmedError{err}
			}
			return conn, nil
		}
	}
	return transport
}

// unconfirmedError is the refusal of Target.Confirm.
type unconfirmedError struct{ err error }

func (e *unconfirmedError) Error() string { return e.err.Error() }
func (e *unconfirmedError) Unwrap() error { return e.err }

// sentKey finds the counter of sent bytes in a request's context.
type sentKey struct{}

func countSent(ctx context.Context) (context.Context, *atomic.Int64) {
	sent := new(atomic.Int64)
	return context.WithValue(ctx, sentKey{}, sent), sent
}

// RoundTrip sends r and returns an answer whose body keeps to the limits.
func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if sent, ok := r.Context().Value(sentKey{}).(*atomic.Int64); ok && r.ContentLength > 0 {
		sent.Add(r.ContentLength)
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	silent := time.AfterFunc(b.limits.FirstByte, func() {
		cancel(&limitError{"timed_out", fmt.Sprintf("no answer came within %s", b.limits.FirstByte)})
	})
	whole := time.AfterFunc(b.limits.Whole, func() {
		cancel(&limitError{"timed_out", fmt.Sprintf("the answer did not end within %s", b.limits.Whole)})
	})
	response, err := b.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		silent.Stop()
		whole.Stop()
		err = limitOr(ctx, err)
		cancel(nil)
		return nil, err
	}
	limit := b.limits.Answer
	if strings.HasPrefix(response.Header.Get("Content-Type"), "text/event-stream") {
		limit = b.limits.Stream
	}
	silent.Stop()
	body := &boundedBody{body: response.Body, ctx: ctx, cancel: cancel, whole: whole, left: limit, limit: limit, idle: b.limits.Idle}
	body.silent = time.AfterFunc(body.idle, func() {
		cancel(&limitError{"timed_out", fmt.Sprintf("the answer stopped for %s", body.idle)})
	})
	response.Body = body
	return response, nil
}

// CloseIdleConnections lets http.Client close what the transport keeps.
func (b *bounded) CloseIdleConnections() {
	if t, ok := b.next.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
}

// limitOr returns the limit that ended ctx, or err.
func limitOr(ctx context.Context, err error) error {
	if limit := new(limitError); errors.As(context.Cause(ctx), &limit) {
		return limit
	}
	return err
}

// boundedBody is the body of an answer with at most limit bytes and no pause longer than idle.
type boundedBody struct {
	body        io.ReadCloser
	ctx         context.Context
	cancel      context.CancelCauseFunc
	silent      *time.Timer
	whole       *time.Timer
	idle        time.Duration
	left, limit int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, &limitError{"answer_too_large", fmt.Sprintf("the answer is larger than %d MiB", b.limit>>20)}
	}
	n, err := b.body.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	b.silent.Reset(b.idle)
	if err != nil && !errors.Is(err, io.EOF) {
		err = limitOr(b.ctx, err)
	}
	return n, err
}

func (b *boundedBody) Close() error {
	b.silent.Stop()
	b.whole.Stop()
	b.cancel(nil)
	return b.body.Close()
}
