package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"companion/messages"
)

var (
	keepAlive = []byte(": keep-alive\n\n")
	doneEvent = []byte("data: [DONE]\n\n")
	eventEnd  = []byte("\n\n")
)

var errClientGone = errors.New("the client left")

// commit writes the head of a stream.
func (e *exchange) commit() {
	if !e.result.Written {
		e.result.Written = true
		e.w.Header()["Content-Type"] = streamType
		e.w.WriteHeader(http.StatusOK)
	}
}

// write adds events to the answer without flushing them.
func (e *exchange) write(events []byte) error {
	e.commit()
	if _, err := e.w.Write(events); err != nil {
		e.result.Gone = true
		return errClientGone
	}
	return nil
}

// pass writes whole events and flushes them.
func (e *exchange) pass(events []byte) error {
	if err := e.write(events); err != nil {
		return err
	}
	if err := http.NewResponseController(e.w).Flush(); err != nil {
		e.result.Gone = true
		return errClientGone
	}
	e.passed = time.Now()
	return nil
}

// began notes when the first event passed.
func (e *exchange) began() {
	if e.result.First.IsZero() {
		e.result.First = e.passed
	}
}

// fail ends a stream that has begun with the error event (L8).
func (e *exchange) fail() {
	if e.result.Written && !e.result.Gone {
		say := e.call.Events.Error
		if say == nil {
			say = e.relay.options.ErrorEvent
		}
		event := say(e.result.Reason)
		if e.cut {
			event = append(bytes.Clone(eventEnd), event...)
		}
		_ = e.pass(event)
	}
}

// streamBytes is the length of the longest event that is held until it is complete. A longer one passes in
// pieces.
const streamBytes = 32 << 10

var streamBuffers = sync.Pool{New: func() any { return new([streamBytes]byte) }}

// stream passes events on as they arrive. Each passes only when it is complete, so that a broken stream never
// ends inside an event. Only the last event is held longer: it tells the client that the answer is complete,
// so it is sent together with the answer's end, when the slot in the runtime is free for the client's next
// request.
func (e *exchange) stream() (whole bool) {
	held := streamBuffers.Get().(*[streamBytes]byte)
	defer streamBuffers.Put(held)
	var s eventScan
	if rewrite := e.call.Events.Rewrite; rewrite != nil {
		e.rewriter = rewrite()
	}
	n := 0
	for {
		m, err := e.body.Read(held[n:])
		n += m
		end := s.scan(held[:n], e)
		if s.finished {
			return e.last(e.rewritten(held[:end]), err == nil)
		}
		if end == 0 && n == len(held) {
			end = n
			e.cutEnd = e.ends(held[:n], e.cut)
			if held[n-1] == '\n' {
				end-- // it may be half of the empty line that ends an event
			}
		}
		if end > 0 {
			if e.pass(e.rewritten(held[:end])) != nil {
				return false
			}
			e.began()
			e.cut = !bytes.HasSuffix(held[:end], eventEnd)
			n = copy(held[:], held[end:n])
		}
		if s.failed || err != nil {
			return e.broken()
		}
	}
}

// settleTime is how long the end of an answer may take after its last event.
const settleTime = time.Second

var errNoEnd = errors.New("the answer is whole, and did not end")

// last passes the last events on in one write with the answer's end. If the end has not arrived, it forwards
// the events now and waits up to settleTime, because the slot in the runtime is free only then. The answer is
// complete without the end, so what arrives meanwhile is dropped.
func (e *exchange) last(events []byte, more bool) (whole bool) {
	if more {
		if len(events) > 0 {
			if e.pass(events) != nil {
				return false
			}
			e.began()
		}
		events, e.cut, e.ending = nil, false, time.Now()
		_, _ = io.Copy(io.Discard, io.LimitReader(e.body, streamBytes))
	}
	if e.result.Gone || e.write(events) != nil {
		return false
	}
	return e.call.Events.own() || e.write(doneEvent) == nil
}

// rewritten returns events as the rewriter completes them.
func (e *exchange) rewritten(events []byte) []byte {
	if e.rewriter == nil {
		return events
	}
	out := e.room[:0]
	for inside := e.cut; len(events) > 0; inside = false {
		n := bytes.Index(events, eventEnd)
		if n < 0 {
			n = len(events)
		} else {
			n += len(eventEnd)
		}
		if inside {
			out = e.rewriter.Rest(out, events[:n])
		} else {
			out = e.rewriter.Event(out, events[:n])
		}
		events = events[n:]
	}
	e.room = out
	return out
}

// broken ends a stream that has not reached its end.
func (e *exchange) broken() (whole bool) {
	e.result.Gone = e.result.Gone || left(e.ctx)
	e.result.Reason = messages.ReasonUpstreamFailed
	var told interface{ Reason() messages.Reason } // of who ends the request
	if errors.As(context.Cause(e.ctx), &told) {
		e.result.Reason = told.Reason()
	}
	if !e.result.Gone {
		e.commit()
		e.fail()
	}
	return false
}

// eventScan tracks the content of the events.
type eventScan struct {
	finished bool // the last event has arrived
	failed   bool // the runtime reported an error, whose text is not passed on
}

// scan returns the length of the complete events at the start of b that may pass, up to the last event. The
// continuation of a long event is not parsed, whatever it looks like.
func (s *eventScan) scan(b []byte, e *exchange) (end int) {
	for inside := e.cut; ; inside = false {
		n := bytes.Index(b[end:], eventEnd)
		if n < 0 {
			return end
		}
		event := b[end : end+n]
		switch {
		case inside && !bytes.Contains(event, []byte(`"usage":{`)):
		case !inside && failure(event):
			s.failed = true
			return end
		case !inside && bytes.HasPrefix(b[end:], doneEvent):
			s.finished = true
			return end
		case bytes.Contains(event, []byte(`"timings":{`)), bytes.Contains(event, []byte(`"usage":{`)):
			e.count(event)
		}
		e.news++
		if e.ends(event, inside) {
			s.finished = true
			return end + n + len(eventEnd)
		}
		end += n + len(eventEnd)
	}
}

// count takes the token counts of an event. The format of Anthropic has those of the prompt in the first event, and
// the others in the last.
func (e *exchange) count(event []byte) {
	now := countTokens(event)
	if now.Prompt == 0 && len(e.call.Events.Last) > 0 {
		now.Prompt = e.result.Tokens.Prompt
	}
	e.result.Tokens = now
	if s := speed(event); s != (messages.Speed{}) {
		e.result.Speed = s
	}
}

// ends reports whether an event ends the answer. inside means that only its continuation is here.
func (e *exchange) ends(event []byte, inside bool) bool {
	if inside {
		return e.cutEnd
	}
	if has := e.call.Events.LastHas; has != "" && bytes.Contains(event, []byte(has)) {
		return true
	}
	for _, last := range e.call.Events.Last {
		if bytes.HasPrefix(event, []byte(last)) {
			return true
		}
	}
	return false
}

// failure reports whether an event is the runtime's report of an error.
func failure(event []byte) bool {
	for _, begin := range []string{"error:", "event: error\n", `data: {"error"`} {
		if bytes.HasPrefix(event, []byte(begin)) {
			return true
		}
	}
	return false
}
