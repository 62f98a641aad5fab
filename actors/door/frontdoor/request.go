package frontdoor

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"

	"companion/adapters/door/proxy"
	"companion/messages"
)

var (
	rawBodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}
	encoded   = sync.Pool{New: func() any { return new([]byte) }}
)

// pooledBytes is the largest buffer that is kept for the next request.
const pooledBytes = 1 << 20

func keepSmall(pool *sync.Pool, b *[]byte) {
	if cap(*b) <= pooledBytes {
		pool.Put(b)
	}
}

// freeBody is the size up to which a body counts as small: small ones are bounded by the number of
// connections, larger ones share Bounds.BodyMemory.
const freeBody = 64 << 10

// readBody reads the body whole. release gives back what it took, and may always be called.
func (v *visit) readBody() (raw *bytes.Buffer, release func(), p *problem) {
	release = func() {}
	limit := v.d.bounds.BodyBytes
	if !plainJSON(v.r.Header) {
		return nil, release, &problem{reason: messages.ReasonBadRequest, text: textNotJSON}
	}
	tooLarge := &problem{reason: messages.ReasonBodyTooLarge, limit: strconv.FormatInt(limit, 10)}
	size := v.r.ContentLength
	if size > limit {
		return nil, release, tooLarge
	}
	if size < 0 {
		size = limit // chunked: it may become as large
	}
	b := rawBodies.Get().(*bytes.Buffer)
	b.Reset()
	release = func() {
		if b.Cap() <= pooledBytes {
			rawBodies.Put(b)
		}
	}
	if size > freeBody {
		if v.d.bodyMemory.Add(size) > v.d.bounds.BodyMemory {
			v.d.bodyMemory.Add(-size)
			return nil, release, refusal(messages.ReasonQueueFull)
		}
		release = func() { v.d.bodyMemory.Add(-size) } // too large to keep
	}
	n, err := b.ReadFrom(io.LimitReader(v.r.Body, limit+1))
	switch {
	case n > limit:
		return nil, release, tooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, release, &problem{reason: messages.ReasonBadRequest, text: textSlowBody}
	case err != nil:
		v.gone = true
		return nil, release, refusal(messages.ReasonBadRequest)
	}
	v.unread = false
	if size > freeBody { // a chunked body is seldom as large as it might have been
		v.d.bodyMemory.Add(n - size)
		size = n
	}
	return b, release, nil
}

// plainJSON reports whether the body is announced as JSON in UTF-8, as it is.
func plainJSON(h http.Header) bool {
	if e := h["Content-Encoding"]; len(e) > 1 || len(e) == 1 && !strings.EqualFold(e[0], "identity") {
		return false
	}
	t := h["Content-Type"]
	if len(t) != 1 {
		return false
	}
	if t[0] == "application/json" {
		return true
	}
	kind, params, err := mime.ParseMediaType(t[0])
	charset, named := params["charset"]
	return err == nil && kind == "application/json" && (!named || strings.EqualFold(charset, "utf-8"))
}

// explain turns a failed call into an answer.
func explain(r proxy.Result, context int) *problem {
	p := refusal(r.Reason)
	switch {
	case r.TooLong:
		p.text, p.limit = textTooLong, strconv.Itoa(context)
	case r.Unsupported:
		p.text = textUnsupported
	}
	return p
}
