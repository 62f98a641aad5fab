package frontdoor

import (
	"context"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/adapters/door/guard"
	"companion/adapters/door/http1"
	"companion/adapters/door/openai"
	"companion/adapters/door/relay"
	"companion/fsm"
	"companion/messages"
)

// door is the state of one run of the actor that request handlers share. Each field says who may use it.
type door struct {
	// Set before the first request, then constant.
	bounds      Bounds
	hosts       []string
	origin      string // such as http://127.0.0.1:4321
	snapshot    *actorkit.Watch[messages.Snapshot]
	observation *actorkit.Watch[messages.Observation]
	log         *zap.Logger
	began       time.Time

	guardPanicked func(value any) // guard.Request.Panicked; built once
	closing       context.Context // ends when the requests have to

	// Safe for concurrent use.
	stats       *stats
	admission   admission
	held        held
	quarantine  *Quarantine
	relay       *relay.Relay
	callers     atomic.Pointer[callers] // the actor's loop stores it
	template    atomic.Pointer[template]
	folds       atomic.Uint64 // the launch whose template refused a conversation and accepted it folded
	memory      memory        // of large bodies
	checks      checks        // of bodies
	refusals    refusalLog    // of the guard
	speculation speculation   // whether speculative decoding makes the runtime slower

	// unfit tells the lifecycle actor that a launch must not use speculative decoding (R12).
	unfit func(ctx context.Context, launch messages.Launch, why string)

	mu      sync.Mutex
	windows guard.Windows // guarded by mu
}

// The routes of L5 and L13. There are no others.
const (
	routeRoot        = "/"
	routeModels      = "/v1/models"
	routeModel       = "/v1/models/{id}"
	routeChat        = "/v1/chat/completions"
	routeCompletions = "/v1/completions"
	routeEmbeddings  = "/v1/embeddings"
	routeInfill      = "/infill"
	routeResponses   = "/v1/responses"
	routeMessages    = "/v1/messages"
	routeCountTokens = "/v1/messages/count_tokens"
	routeOther       = "other" // all other paths, in the log
)

var bodies = map[string]openai.Route{
	routeChat: openai.Chat, routeCompletions: openai.Completions, routeEmbeddings: openai.Embeddings,
	routeInfill:    openai.Infill,
	routeResponses: openai.Responses, routeMessages: openai.Messages, routeCountTokens: openai.CountTokens,
}

// route returns the route of a request. A known path with the wrong method is routeOther.
func route(method, path string) string {
	if method == http.MethodGet || method == http.MethodHead { // package http1 drops the content of an answer to HEAD
		switch {
		case path == routeRoot, path == routeModels:
			return path
		case len(path) > len(routeModels)+1 && strings.HasPrefix(path, routeModels+"/"):
			return routeModel
		}
	}
	if _, known := bodies[path]; known && method == http.MethodPost {
		return path
	}
	return routeOther
}

// visit is the state of one request. The access log is written from it (L11).
type visit struct {
	d     *door
	w     http.ResponseWriter
	r     *http.Request
	conn  *http1.Conn
	began time.Time

	route  string
	reason messages.Reason
	status int
	gone   bool
	tokens relay.Tokens
	first  time.Time // of the first event of a stream
	caller guard.Caller
	grant  *grant        // of an application (L14); nil for other callers
	unread bool          // the body is not read to its end
	ending *relay.Ending // the runtime may still work for a client that left
	owed   need          // the slots that it keeps until then

	watched *watched // of the last exchange with the runtime
}

// ServeHTTP serves a request: guard, route, gate, body, quarantine, runtime.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := visit{d: d, w: w, r: r, conn: http1.From(r.Context()), began: time.Now(), route: routeOther}
	defer v.contain()
	defer v.settle()
	harden(w.Header())
	admitted := v.guard()
	if v.conn != nil && !v.conn.Judged().Malformed { // the path of a malformed head is not known
		v.route = route(r.Method, r.URL.Path) // also of refused requests, for the log
	}
	if admitted {
		v.asCaller(v.serve)
	}
	if v.conn != nil {
		v.conn.End() // the client need not wait for the log
	}
	took := time.Since(v.began)
	if admitted && v.caller != guard.Probe {
		d.stats.took(took)
		if v.reason == messages.ReasonOK && v.tokens != (relay.Tokens{}) {
			d.stats.answered(v.tokens, v.began, v.first, v.began.Add(took))
		}
	}
	if v.status != 0 {
		d.stats.verdict(v.reason)
	}
	if admitted || v.d.refusals.allow(v.reason) {
		v.log(took)
	}
}

// contain turns a panic into a closed connection and an entry in the log.
func (v *visit) contain() {
	if value := recover(); value != nil {
		v.d.panicked("request handler", value)
		panic(http.ErrAbortHandler)
	}
}

// panicked logs a recovered value and the stack, so it must be called on the stack of the panic. The value
// may be a part of the request, so its type is logged and not its text (J4).
func (d *door) panicked(where string, value any) {
	d.log.Error("panic contained", zap.String("where", where), zap.String("panic", actorkit.DescribePanic(value)),
		zap.ByteString("stack", debug.Stack()))
}

// log writes an entry of the access log. It never holds a header, the path as it was sent, or anything of a
// body.
func (v *visit) log(took time.Duration) {
	level := zap.InfoLevel
	if v.caller == guard.Probe && (v.reason == messages.ReasonOK || v.gone) {
		level = zap.DebugLevel // the daemon's own probes
	}
	if line := v.d.log.Check(level, "request"); line != nil {
		application := zap.Skip()
		if v.grant != nil {
			application = zap.String("application", v.grant.entry.Name)
		}
		line.Write(application, zap.String("reason", string(v.reason)), zap.String("route", v.route), zap.Int("status", v.status),
			zap.Duration("duration", took), zap.Int("promptTokens", v.tokens.Prompt), zap.Int("completionTokens", v.tokens.Completion),
			zap.Bool("clientLeft", v.gone))
	}
}

// guard calls the guard and answers if it refuses. A request that did not come through package http1 is
// refused, because its raw head was not judged.
func (v *visit) guard() bool {
	head := http1.Head{Malformed: true}
	if v.conn != nil {
		head = v.conn.Judged()
	}
	v.unread = head.Length > 0 || head.Chunked
	in := guard.Request{
		Malformed: head.Malformed, Method: v.r.Method, Header: v.r.Header,
		Wall: v.began.UnixNano(), Panicked: v.d.guardPanicked,
	}
	known := v.d.callers.Load()
	if !head.BadHost {
		in.Host = v.r.Host
	}
	v.d.mu.Lock()
	in.Now = int64(v.began.Sub(v.d.began))
	verdict, caller := guard.Decide(&in, known.tokens, v.d.hosts, &v.d.windows)
	v.d.mu.Unlock()
	if !verdict.Allow {
		v.w.Header()["Connection"] = closeConn // a refused connection is closed (L3)
		v.refuse(refusal(verdict.Reason))
		return false
	}
	v.caller = caller
	v.grant = known.grant(caller)
	return true
}

// refuse answers with a problem. An unread body must not hold the connection, so it is closed then.
func (v *visit) refuse(p *problem) {
	if v.unread {
		v.w.Header()["Connection"] = closeConn
	}
	v.reason = p.reason
	v.status = p.write(v.w, shapeOf(v.r.URL.Path))
}

// serve answers a request that the guard has admitted.
func (v *visit) serve() {
	switch {
	case v.caller == guard.Probe && (v.route != routeModels || v.r.Method != http.MethodGet):
		v.w.Header()["Connection"] = closeConn
		v.refuse(refusal(messages.ReasonInvalidToken)) // the probe token is valid for that route only (A4)
	case v.caller == guard.Probe:
		v.probe()
	case v.route == routeOther:
		v.refuse(noRoute(v.r.URL.Path, v.d.origin))
	case v.route == routeRoot:
		v.root()
	case v.route == routeModels:
		v.models()
	case v.route == routeModel:
		v.model(strings.TrimPrefix(v.r.URL.Path, routeModels+"/"))
	default:
		v.complete()
	}
}

// gate asks the gate before the body is read (A6). It takes no slot.
func (v *visit) gate(s messages.Snapshot) *problem {
	reason := fsm.Gate(fsm.GateRequest{
		Snapshot: &s, Admission: v.d.admission.now(), Limits: v.d.bounds.Resources,
		Seen: v.d.observation.Get(), Now: time.Now(),
	})
	if reason != messages.ReasonOK && reason != messages.ReasonAtCapacity {
		return refusal(reason)
	}
	return nil
}

// complete serves the routes with a body.
func (v *visit) complete() {
	s, raw, p := v.received()
	if p != nil {
		v.refuse(p)
		v.left(v.gone, false)
		return
	}
	checked, about, p := v.check(raw, s.Model)
	if p != nil {
		v.refuse(p)
		return
	}
	defer checked.release()
	v.d.stats.drops(about.Dropped)
	if about.Probabilities && s.Speculates {
		if reason := v.awaitPlain(); reason != messages.ReasonOK {
			v.refuse(refusal(reason))
			return
		}
	}
	if s.Launch != 0 && v.d.folds.Load() == uint64(s.Launch) {
		v.fold(checked)
	}
	print := fingerprintOf(v.route, s.Model, checked.bytes)
	alone, p := v.quarantined(&print)
	if p != nil {
		v.refuse(p)
		return
	}
	v.run(s, checked, about, print, need{alone: alone, slots: about.Answers})
}

// quarantined asks the quarantine about a checked request, and reports whether it must run alone in the
// runtime (R11).
func (v *visit) quarantined(print *fingerprint) (alone bool, p *problem) {
	switch v.d.quarantine.judge(print) {
	case refusedForItself:
		return false, refusal(messages.ReasonRequestEndsRuntime)
	case refusedForKind:
		return false, &problem{reason: messages.ReasonRuntimeUnavailable, text: textNewFormats, limit: strconv.Itoa(int(carefulTime.Minutes()))}
	case permittedAlone:
		return true, nil
	}
	return false, nil
}

// mayRun asks the questions of the gate, except for admission (A6).
func (v *visit) mayRun(s messages.Snapshot) messages.Reason {
	if reason := fsm.GateLifecycle(s.State); reason != messages.ReasonOK {
		return reason
	}
	return fsm.Resources(v.d.bounds.Resources, v.d.observation.Get(), time.Now())
}

// enter takes a slot, and waits for it if necessary. A request leaves the queue when its client has left, and
// when the runtime is not ready.
func (v *visit) enter(ctx context.Context, n need) messages.Reason {
	t, reason := v.d.admission.enter(n)
	if reason != messages.ReasonAtCapacity {
		return reason
	}
	late := time.NewTimer(v.d.bounds.QueueTimeout)
	defer late.Stop()
	look := time.NewTicker(lookAfterClient)
	defer look.Stop()
	for {
		s, changed := v.d.snapshot.Next()
		if reason := fsm.GateLifecycle(s.State); reason != messages.ReasonOK {
			v.d.admission.giveUp(t)
			return reason
		}
		select {
		case <-t.ready:
			return messages.ReasonOK
		case <-look.C:
			v.gone = v.conn.Gone() // ends ctx
		case <-ctx.Done():
			v.d.admission.giveUp(t)
			return messages.ReasonQueueTimeout
		case <-late.C:
			v.d.admission.giveUp(t)
			return messages.ReasonQueueTimeout
		case <-changed:
		}
	}
}

// lookAfterClient is how often a waiting request checks whether its client has left.
const lookAfterClient = 50 * time.Millisecond
