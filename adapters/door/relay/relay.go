// Package relay is the reverse proxy between the front door and the runtime: it sends admitted requests to
// llama-server and passes its answers and event streams back (L7, L8). It has its own pool of connections to
// the back end, sends each request once, and reads the answer's head itself: httputil.ReverseProxy with
// http.Transport costs two more goroutines and several hand-overs per request. A fuzz test compares what it
// reads with net/http's parser.
//
// It writes both heads itself, so no token, cookie, origin or CORS header passes either way (L7). The
// runtime's error texts do not pass either: they become reasons.
//
// It guarantees: When a client leaves, the upstream connection is shut down at once, so that the runtime stops
// computing; Result.Ending tells when it has stopped. A stale pooled connection is replaced, and the request is sent again only if nothing was sent or
// if it is safe. The connections of a launch end with it. A broken stream ends with an error event. Each new
// connection is checked to be to the runtime's process (R3).
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

// Options configure a Relay. A zero value means the default that is given.
type Options struct {
	// KeepAlive is how long a stream is silent before a comment is sent to the client: 15 s.
	KeepAlive time.Duration
	// AnswerBytes is the length of the longest answer that is not a stream: 64 MiB.
	AnswerBytes int64
	// AnswerMemory bounds what all answers that are not streams hold at once, in bytes: 128 MiB. While an
	// answer is read it needs up to three times its length.
	AnswerMemory int64
	// IdleConns is the number of idle connections that are kept: 16. It should be the number of requests that
	// run at once.
	IdleConns int
	// Dial replaces the dialer in tests.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// ErrorEvent returns the server-sent event that ends a broken stream, unless Events.Error is set.
	ErrorEvent func(messages.Reason) []byte
}

// Events says how the streams of a format end, if not as OpenAI's chat completions do.
type Events struct {
	// Last has the beginnings of the events that end an answer.
	Last []string
	// LastHas is text that only the event that ends an answer contains, near its begin.
	LastHas string
	// Error returns the event that ends a broken stream.
	Error func(messages.Reason) []byte
	// Rewrite, if set, returns what completes the events of one stream, or one answer that is not a stream.
	Rewrite func() Rewriter
}

// own reports whether the format has an end of its own.
func (e *Events) own() bool { return len(e.Last) > 0 || e.LastHas != "" }

// Rewriter adds what clients of a format need and the runtime does not write. It belongs to one exchange.
type Rewriter interface {
	// Event appends to out a complete event, or the first part of a long one.
	Event(out, event []byte) []byte
	// Rest appends to out a further part of the event whose first part Event got last.
	Rest(out, part []byte) []byte
	// Answer returns an answer that is not a stream.
	Answer(whole []byte) []byte
}

// Relay is safe for concurrent use. The front door's request handlers call it.
type Relay struct {
	options Options
	pool    pool
	answers *semaphore.Weighted // the bytes of Options.AnswerMemory
}

// New returns a Relay without a target.
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

// Use makes t the only back end and closes the idle connections to earlier launches. It ignores a launch that
// is older than the current one.
func (r *Relay) Use(t Target) { _ = r.pool.use(t) }

// Close closes every idle connection. Later calls fail.
func (r *Relay) Close() { r.pool.close() }

// Call is one request to the runtime. Body is nil for GET.
type Call struct {
	Target Target
	Path   string
	Body   []byte
	Stream bool
	// Gone, if set, is polled until the answer has ended. It reports whether the client has left.
	Gone func() bool
	// Sending, if set, is called before something is sent. It is called again before a second attempt.
	Sending func()
	// Heard, if set, is called soon after data from the runtime has arrived, with the number of events of the stream
	// since the last call, but not for each event.
	Heard func(events int)
	// Events are those of the format of the path.
	Events Events
}

// Result says how a call ended. Unless Written is set, the client has no answer yet, and the caller answers
// with Reason. Gone means that the client has left.
type Result struct {
	Reason      messages.Reason
	Written     bool
	Gone        bool
	TooLong     bool // ReasonBadRequest: the prompt does not fit the context
	Unsupported bool // ReasonBadRequest: the model cannot do this
	Template    bool // ReasonBadRequest: the model's chat template does not accept the conversation
	// PromptTokens is the length of a prompt that does not fit, if the runtime says it.
	PromptTokens int
	Sent         bool // some of the request was sent
	Whole        bool // the runtime's answer, or its refusal, was read to its end
	Lost         bool // the runtime ended the connection before that
	Tokens       Tokens
	First        time.Time // when the first event of a stream was passed on; zero for other answers
	// Ending is set when the client of a call with a Body has left and the runtime may still work for it. The caller
	// must call Wait.
	Ending *Ending
	Speed  messages.Speed // zero if the runtime did not report it
}

// Tokens are the token counts in an answer.
type Tokens struct{ Prompt, Completion int }

// fetchBytes is the length of the longest answer that Fetch returns.
const fetchBytes = 1 << 20

// Fetch returns the content of a call that is answered 200 and is no Stream.
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

// exchange is one running call. It belongs to one goroutine.
type exchange struct {
	relay  *Relay
	ctx    context.Context
	call   Call
	w      http.ResponseWriter
	up     *upstream
	head   answerHead
	body   io.Reader
	passed time.Time // when the client last got data of a stream
	cut    bool      // the last write ended inside an event
	cutEnd bool      // inside the last event of the answer
	news   int       // events since the last call of Heard

	rewriter Rewriter  // of a stream; nil for none
	room     []byte    // for what the rewriter returns
	ending   time.Time // when the last event of a stream had arrived without its end
	result   Result
}

// left reports whether ctx ended because the client left. When the front door ends a request it sets another
// cause, and the client gets an answer.
func left(ctx context.Context) bool { return errors.Is(context.Cause(ctx), context.Canceled) }

// open sends the request and reads the head of the answer. If it returns false, e.result says why.
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

// look is how often the client and ctx are checked while the runtime works.
const look = 50 * time.Millisecond

// sendTime bounds the sending of a large body. A runtime that does not read has hung.
const sendTime = 30 * time.Second

// watch runs every look while the runtime works. It ends the call when the client has left, which closes the
// connection so that the runtime stops computing, and it sends comments to a client that waits for a silent
// stream.
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

// lookAround returns an error when no client waits for the answer.
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
		e.call.Heard(e.news)
		e.up.heard, e.news = false, 0
	}
}

// try makes one attempt. It returns how many bytes of the request were sent.
func (e *exchange) try(fresh bool) (sent int64, err error) {
	e.up, err = e.relay.pool.get(e.ctx, e.call.Target, fresh, e.lookAround)
	if err != nil {
		e.up = nil
		return 0, err
	}
	up := e.up
	e.passed = time.Now()
	if err := up.listen(e.watch, min(look, e.relay.options.KeepAlive)); err != nil {
		return 0, err
	}
	if e.call.Sending != nil {
		e.call.Sending()
	}
	sent, err = e.send()
	e.result.Sent = sent > 0
	if err != nil {
		var network *net.OpError // not an error of watch
		up.ended = up.ended || errors.As(err, &network) && !network.Timeout()
		return sent, err
	}
	up.headLeft = headBytes
	defer func() { up.headLeft = 0 }()
	for range 5 { // informational answers are skipped
		e.head, err = readHead(up.in)
		if err != nil || e.head.status >= 200 || e.head.status == http.StatusSwitchingProtocols {
			e.body = e.head.body(up.in)
			return sent, err
		}
	}
	return sent, errBadAnswer
}

// send writes the request at once.
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
	if errors.Is(err, os.ErrDeadlineExceeded) { // the runtime answers without reading
		more, err := e.sendLarge(net.Buffers{out[n:]})
		return int64(n) + more, err
	}
	return int64(n), err
}

// sendLarge writes what may be more than the socket's buffer holds, and calls watch while it waits.
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

// judge turns the status of the answer into a reason. The runtime's error text is not passed on.
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
	case bytes.Contains(text, []byte("Jinja Exception")): // of a template's raise_exception
		e.result.Reason, e.result.Template = messages.ReasonBadRequest, true
	case status == http.StatusNotImplemented || bytes.Contains(text, []byte("not_supported_error")), bytes.Contains(text, []byte("input is not supported")):
		e.result.Reason, e.result.Unsupported = messages.ReasonBadRequest, true
	case bytes.Contains(text, []byte("exceed_context_size_error")), bytes.Contains(text, []byte("too large to process")): // the latter for an embedding
		e.result.Reason, e.result.TooLong = messages.ReasonBadRequest, true
		e.result.PromptTokens = promptLength(text)
	case status >= 400 && status < 500:
		e.result.Reason = messages.ReasonBadRequest
	case status == http.StatusServiceUnavailable:
		e.result.Reason = messages.ReasonRuntimeUnavailable
	default:
		e.result.Reason = messages.ReasonUpstreamFailed
	}
	return false
}

// done returns the connection to the pool if the answer was read to its end, and closes it otherwise.
// llama-server closes the connection after a stream although it sends Keep-Alive; a request that is sent at that time
// would be lost.
func (e *exchange) done(whole bool) {
	if e.up == nil {
		return
	}
	e.tellHeard()
	e.result.Lost = e.up.ended && !e.result.Whole && !whole
	if !whole && e.result.Gone && e.call.Body != nil {
		e.result.Ending = e.up.hangUp()
	} else if !whole || e.head.close || e.head.events || e.head.status == http.StatusSwitchingProtocols || e.up.in.Buffered() > 0 {
		_ = e.up.Close()
	} else {
		e.relay.pool.put(e.up)
	}
	e.up = nil
}

// answer passes on an answer that is not a stream. It is read whole first, so that a runtime that dies while
// it writes causes an error and not half an answer.
func (e *exchange) answer() (whole bool) {
	b := newAnswerBuffer(e.relay.answers)
	defer b.release()
	if !e.slurp(b, e.relay.options.AnswerBytes) {
		return false
	}
	e.result.Tokens, e.result.Speed = countTokens(b.bytes), speed(b.bytes)
	content := b.bytes
	if rewrite := e.call.Events.Rewrite; rewrite != nil {
		content = rewrite().Answer(content)
	}
	h := e.w.Header()
	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{strconv.Itoa(len(content))}
	e.result.Written = true
	if _, err := e.w.Write(content); err != nil {
		e.result.Gone = true
	}
	return true
}

var (
	jsonType   = []string{"application/json"}
	streamType = []string{"text/event-stream"}
)

// slurp reads the answer's content whole, at most limit bytes.
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

// countTokens finds the token counts in an answer or event. Generated text cannot contain the quoted names, because
// its quotes are escaped.
func countTokens(b []byte) Tokens {
	if at := bytes.LastIndex(b, []byte(`"usage":{`)); at >= 0 {
		b = b[at:] // the end of an answer; looking for each name in all of it would take longer than the rest
	}
	prompt, some := number(b, `"prompt_tokens":`)
	completion, more := number(b, `"completion_tokens":`)
	if !some && !more {
		prompt, some = number(b, `"input_tokens":`)
		completion, more = number(b, `"output_tokens":`)
		cached, _ := number(b, `"cache_read_input_tokens":`) // Anthropic counts them apart
		prompt += cached
	}
	if !some && !more {
		prompt, _ = number(b, `"prompt_n":`)
		completion, _ = number(b, `"predicted_n":`)
	}
	return Tokens{prompt, completion}
}

// speed reads the timings that llama-server reports of an answer. They have draft tokens only if there were some.
func speed(b []byte) messages.Speed {
	at := bytes.LastIndex(b, []byte(`"timings":{`))
	if at < 0 {
		return messages.Speed{}
	}
	b = b[at:]
	tokens, _ := number(b, `"predicted_n":`)
	millis, _ := number(b, `"predicted_ms":`)
	drafted, _ := number(b, `"draft_n":`)
	accepted, _ := number(b, `"draft_n_accepted":`)
	return messages.Speed{Tokens: tokens, Millis: float64(millis), Drafted: drafted, Accepted: accepted}
}

// promptLength finds the number of a prompt's tokens in the runtime's error, which says it in a field, or, of an
// embedding, only in the text.
func promptLength(text []byte) int {
	if n, found := number(text, `"n_prompt_tokens":`); found {
		return n
	}
	n, _ := number(text, "input (")
	return n
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
