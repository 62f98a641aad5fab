// Package relay carries admitted requests to the runtime and its answers back (L7, L8). It keeps its
// own pool of connections to the back end, writes each request once, and reads the answer's head itself:
// httputil.ReverseProxy with http.Transport costs two more goroutines and several hand-overs per
// request. A fuzz test holds what it reads against net/http's parser.
//
// Nothing of the client's head goes to the runtime, and nothing of the runtime's head comes back:
// both are written anew, so no token, cookie, origin or CORS header can pass either way (L7). The
// runtime's error texts do not pass either; they become reasons.
//
// What it answers for: a client that leaves ends the upstream connection at once, so that the
// runtime stops computing; a pooled connection that went stale is replaced, and the request sent
// again only if nothing was sent or it is safe; the connections of one launch die with it; a stream
// that breaks off ends with an error event.
package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"golang.org/x/sync/semaphore"

	"companion/messages"
)

// Options tune a Relay; zero values are the defaults.
type Options struct {
	// KeepAlive is how long a stream is quiet before a comment keeps the client waiting: 15 s.
	KeepAlive time.Duration
	// AnswerBytes is the longest answer that is not a stream: 64 MiB.
	AnswerBytes int64
	// AnswerMemory is what all answers that are not streams may hold at once, in bytes: 128 MiB. An answer
	// needs up to three times its length while it is read.
	AnswerMemory int64
	// IdleConns is how many idle connections are kept: 16. As many as requests run at once is right.
	IdleConns int
	// Dial replaces the dialer in tests.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// ErrorEvent is the server-sent event that ends a broken stream.
	ErrorEvent func(messages.Reason) []byte
}

// Relay is safe for concurrent use. Its callers are the front door's request handlers.
type Relay struct {
	options Options
	pool    pool
	answers *semaphore.Weighted // the bytes of Options.AnswerMemory
}

// New makes a Relay that has no target yet.
func New(o Options) *Relay {
	if o.KeepAlive <= 0 {
		o.KeepAlive = 15 * time.Second
	}
	if o.AnswerBytes <= 0 {
		o.AnswerBytes = 64 << 20
	}
	if o.AnswerMemory <= 0 {
		o.AnswerMemory = 128 << 20
	}
	if o.IdleConns <= 0 {
		o.IdleConns = 16
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: dialTime}).DialContext
	}
	if o.ErrorEvent == nil {
		o.ErrorEvent = func(messages.Reason) []byte { return []byte("data: {\"error\":{}}\n\n") }
	}
	return &Relay{options: o, pool: pool{dial: o.Dial, max: o.IdleConns}, answers: semaphore.NewWeighted(o.AnswerMemory)}
}

// Use makes t the only back end; the idle connections of an earlier launch are closed. A launch
// that is older than the latest changes nothing.
func (r *Relay) Use(t Target) { _ = r.pool.use(t) }

// Close ends every idle connection; later calls fail.
func (r *Relay) Close() { r.pool.close() }

// Call is one request to the runtime. Body is nil for GET.
type Call struct {
	Target Target
	Path   string
	Body   []byte
	Stream bool
	// Gone, when set, is asked now and then until the answer is there: whether the client has left.
	Gone func() bool
	// Heard, when set, is called soon after the runtime has said something, and not for each event.
	Heard func()
}

// Result says how a call ended. Unless Written, nothing was answered and the caller answers with
// Reason. Gone says that the client left first.
type Result struct {
	Reason      messages.Reason
	Written     bool
	Gone        bool
	TooLong     bool // ReasonBadRequest: the prompt does not fit the context
	Unsupported bool // ReasonBadRequest: the model cannot do this
	Sent        bool // some of the request may have reached the runtime
	Whole       bool // the runtime's answer, or its refusal, was read to its end
	Tokens      Tokens
}

// Tokens are counts that the runtime told.
type Tokens struct{ Prompt, Completion int }

// fetchBytes is the longest answer that Fetch returns.
const fetchBytes = 1 << 20

// Fetch returns the body of a GET answered 200. Its call has no Body and no Stream.
func (r *Relay) Fetch(ctx context.Context, c Call) ([]byte, Result) {
	e := &exchange{relay: r, ctx: ctx, call: c}
	if !e.open() {
		return nil, e.result
	}
	b := newAnswerBuffer(r.answers)
	defer b.release()
	whole := e.slurp(b, fetchBytes)
	e.done(whole)
	return bytes.Clone(b.bytes), e.result
}

// Do sends the call and passes the answer on to w.
func (r *Relay) Do(ctx context.Context, w http.ResponseWriter, c Call) Result {
	e := &exchange{relay: r, ctx: ctx, call: c, w: w}
	if !e.open() {
		e.fail()
		return e.result
	}
	if c.Stream {
		e.result.Whole = e.stream()
	} else {
		e.result.Whole = e.answer()
	}
	e.done(e.result.Whole)
	return e.result
}

// exchange is one call on its way. It belongs to one goroutine.
type exchange struct {
	relay  *Relay
	ctx    context.Context
	call   Call
	w      http.ResponseWriter
	up     *upstream
	head   answerHead
	body   io.Reader
	passed time.Time // when the client last got something of a stream
	cut    bool      // what was passed last ends within an event
	ending time.Time // when the last event of a stream had come, whose end has not
	result Result
}

// left reports whether ctx ended because the client left. When the front door itself ends a request
// it gives a cause of its own, and the client is told.
func left(ctx context.Context) bool { return errors.Is(context.Cause(ctx), context.Canceled) }

// open sends the request and reads the head of the answer. False: result says why there is none.
func (e *exchange) open() bool {
	if err := e.relay.pool.use(e.call.Target); err != nil {
		e.result.Reason = messages.ReasonRuntimeUnavailable
		return false
	}
	sent, err := e.try(false)
	if err != nil && e.up != nil && e.up.reused && (sent == 0 || e.call.Body == nil) && e.ctx.Err() == nil && !e.result.Written && !e.result.Gone {
		e.done(false)
		_, err = e.try(true)
	}
	if err != nil {
		e.result.Gone = e.result.Gone || left(e.ctx)
		e.result.Reason = messages.ReasonUpstreamFailed
		switch {
		case errors.Is(err, errForeign):
			e.result.Reason = messages.ReasonBackendUnreachable
		case e.up == nil:
			e.result.Reason = messages.ReasonRuntimeUnavailable
		}
		e.done(false)
		return false
	}
	return e.judge()
}

// look is how often we look after the client, and after ctx, while the runtime is at work.
const look = 50 * time.Millisecond

// sendTime bounds the sending of a large body: a runtime that does not even read has hung.
const sendTime = 30 * time.Second

// watch runs every so often while the runtime is at work. It ends the wait when nobody waits for the
// answer any more, which closes the connection, so that the runtime stops computing; and it keeps a
// client that does wait from giving up.
func (e *exchange) watch() error {
	if err := e.lookAround(); err != nil {
		return err
	}
	if !e.ending.IsZero() && time.Since(e.ending) >= settleTime {
		return errNoEnd
	}
	if e.call.Stream && !e.cut && time.Since(e.passed) >= e.relay.options.KeepAlive {
		return e.pass(keepAlive)
	}
	return nil
}

// lookAround tells when nobody waits for the answer any more.
func (e *exchange) lookAround() error {
	e.tellHeard()
	if e.call.Gone != nil && e.call.Gone() {
		e.result.Gone = true
		return errClientGone
	}
	if e.ctx.Err() != nil {
		return context.Cause(e.ctx)
	}
	return nil
}

func (e *exchange) tellHeard() {
	if e.up != nil && e.up.heard && e.call.Heard != nil {
		e.call.Heard()
		e.up.heard = false
	}
}

// try makes one attempt, and says how many bytes of the request were sent.
func (e *exchange) try(fresh bool) (sent int64, err error) {
	e.up, err = e.relay.pool.get(e.ctx, e.call.Target, fresh, e.lookAround)
	if err != nil {
		e.up = nil
		return 0, err
	}
	up := e.up
	e.result.Sent = true
	e.passed = time.Now()
	if err := up.listen(e.watch, min(look, e.relay.options.KeepAlive)); err != nil {
		return 0, err
	}
	if sent, err = e.send(); err != nil {
		return sent, err
	}
	up.headLeft = headBytes
	defer func() { up.headLeft = 0 }()
	for range 5 { // informational answers, which nobody asked for
		e.head, err = readHead(up.in)
		if err != nil || e.head.status >= 200 || e.head.status == http.StatusSwitchingProtocols {
			e.body = e.head.body(up.in)
			return sent, err
		}
	}
	return sent, errBadAnswer
}

// send writes the request in one go.
func (e *exchange) send() (int64, error) {
	out := e.up.out[:0]
	if e.call.Body == nil {
		out = append(append(append(out, "GET "...), e.call.Path...), " HTTP/1.1\r\nHost: localhost\r\n\r\n"...)
	} else {
		out = append(append(append(out, "POST "...), e.call.Path...), " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "...)
		out = append(strconv.AppendInt(out, int64(len(e.call.Body)), 10), "\r\n\r\n"...)
	}
	if len(e.call.Body) > copied {
		return e.sendLarge(net.Buffers{out, e.call.Body})
	}
	out = append(out, e.call.Body...)
	e.up.out = out
	n, err := e.up.Write(out)
	if errors.Is(err, os.ErrDeadlineExceeded) { // a runtime that answers without reading
		more, err := e.sendLarge(net.Buffers{out[n:]})
		return int64(n) + more, err
	}
	return int64(n), err
}

// sendLarge writes what may be more than the connection holds, and looks around while it waits.
func (e *exchange) sendLarge(rest net.Buffers) (sent int64, err error) {
	for end := time.Now().Add(sendTime); ; {
		if err := e.up.SetWriteDeadline(time.Now().Add(look)); err != nil {
			return sent, err
		}
		n, err := rest.WriteTo(e.up.Conn)
		if sent += n; !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().After(end) {
			return sent, errors.Join(err, e.up.SetWriteDeadline(time.Time{}))
		}
		if err := e.watch(); err != nil {
			return sent, err
		}
	}
}

// judge turns the status of the answer into a reason. The runtime's own error text stays here.
func (e *exchange) judge() bool {
	status := e.head.status
	if status == http.StatusOK && (e.call.Stream && e.head.events || !e.call.Stream && e.head.json) {
		e.result.Reason = messages.ReasonOK
		return true
	}
	text, err := io.ReadAll(io.LimitReader(e.body, 64<<10))
	e.result.Whole = err == nil
	e.done(err == nil && len(text) < 64<<10)
	switch {
	case status == http.StatusNotImplemented || bytes.Contains(text, []byte("not_supported_error")), bytes.Contains(text, []byte("input is not supported")):
		e.result.Reason, e.result.Unsupported = messages.ReasonBadRequest, true
	case bytes.Contains(text, []byte("exceed_context_size_error")), bytes.Contains(text, []byte("too large to process")): // the latter of an embedding
		e.result.Reason, e.result.TooLong = messages.ReasonBadRequest, true
	case status >= 400 && status < 500:
		e.result.Reason = messages.ReasonBadRequest
	case status == http.StatusServiceUnavailable:
		e.result.Reason = messages.ReasonRuntimeUnavailable
	default:
		e.result.Reason = messages.ReasonUpstreamFailed
	}
	return false
}

// done gives the connection back when the answer was read whole, and closes it otherwise. After a
// stream llama-server closes it, although it says Keep-Alive: a request that is sent in that moment
// would be lost.
func (e *exchange) done(whole bool) {
	if e.up == nil {
		return
	}
	e.tellHeard()
	if !whole || e.head.close || e.head.events || e.head.status == http.StatusSwitchingProtocols || e.up.in.Buffered() > 0 {
		_ = e.up.Close()
	} else {
		e.relay.pool.put(e.up)
	}
	e.up = nil
}

// answer passes on an answer that is not a stream. It is read whole first, so that a runtime that dies while it
// writes causes an error and not half an answer.
func (e *exchange) answer() (whole bool) {
	b := newAnswerBuffer(e.relay.answers)
	defer b.release()
	if !e.slurp(b, e.relay.options.AnswerBytes) {
		return false
	}
	e.result.Tokens = countTokens(b.bytes)
	h := e.w.Header()
	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{strconv.Itoa(len(b.bytes))}
	e.result.Written = true
	if _, err := e.w.Write(b.bytes); err != nil {
		e.result.Gone = true
	}
	return true
}

var (
	jsonType   = []string{"application/json"}
	streamType = []string{"text/event-stream"}
)

// slurp reads the answer's body whole, up to limit bytes.
func (e *exchange) slurp(b *answerBuffer, limit int64) bool {
	err := b.readFrom(e.body, int(limit))
	switch {
	case err == nil:
		return true
	case errors.Is(err, errNoMemory):
		e.result.Reason = messages.ReasonQueueFull
	default:
		e.result.Reason = messages.ReasonUpstreamFailed
		e.result.Gone = e.result.Gone || left(e.ctx)
	}
	return false
}

// countTokens finds the counts in an answer or event. The names cannot stand in a text of the
// model's: there their quotes are escaped.
func countTokens(b []byte) Tokens {
	prompt, some := number(b, `"prompt_tokens":`)
	completion, more := number(b, `"completion_tokens":`)
	if !some && !more {
		prompt, _ = number(b, `"prompt_n":`)
		completion, _ = number(b, `"predicted_n":`)
	}
	return Tokens{prompt, completion}
}

func number(b []byte, name string) (n int, found bool) {
	i := bytes.LastIndex(b, []byte(name))
	if i < 0 {
		return 0, false
	}
	for _, c := range b[i+len(name):] {
		if c < '0' || c > '9' || n > 1<<40 {
			break
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}
