package frontdoor

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"

	"companion/adapters/door/openai"
	"companion/adapters/door/relay"
	"companion/messages"
)

// readBody reads the whole body. The caller releases it.
func (v *visit) readBody() (whole *bodyBuffer, p *problem) {
	limit := v.d.bounds.BodyBytes
	if !plainJSON(v.r.Header) {
		return nil, &problem{reason: messages.ReasonBadRequest, text: textNotJSON}
	}
	tooLarge := &problem{reason: messages.ReasonBodyTooLarge, limit: strconv.FormatInt(limit, 10)}
	most := v.r.ContentLength
	if most > limit {
		return nil, tooLarge
	}
	if most < 0 {
		most = limit + 1 // chunked: it may become too large
	}
	b := v.d.memory.hold()
	defer func() {
		if whole == nil {
			b.release()
		}
	}()
	if p := v.fill(b, int(most)); p != nil {
		return nil, p
	}
	if int64(len(b.bytes)) > limit {
		return nil, tooLarge
	}
	v.unread = false
	return b, nil
}

// fill reads the body into b until the body ends or b holds most bytes.
func (v *visit) fill(b *bodyBuffer, most int) *problem {
	for {
		if len(b.bytes) == cap(b.bytes) && len(b.bytes) < most && !b.grow(most) {
			return refusal(messages.ReasonQueueFull)
		}
		n, err := v.r.Body.Read(b.bytes[len(b.bytes):cap(b.bytes)])
		b.bytes = b.bytes[:len(b.bytes)+n]
		switch {
		case err == io.EOF || len(b.bytes) >= most:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return &problem{reason: messages.ReasonBadRequest, text: textSlowBody}
		case err != nil:
			var broken net.Error // of the connection
			if v.gone = errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &broken); v.gone {
				return refusal(messages.ReasonBadRequest)
			}
			return &problem{reason: messages.ReasonBadRequest, text: textBadChunks}
		}
	}
}

// check returns the request to send to the runtime. It releases raw, so that only the new form is in memory.
func (v *visit) check(raw *bodyBuffer, model messages.Model) (checked *bodyBuffer, about openai.Result, p *problem) {
	defer raw.release()
	out := v.d.memory.hold()
	defer func() {
		if checked == nil {
			out.release()
		}
	}()
	if !out.reserve(len(raw.bytes) + slack) {
		return nil, about, refusal(messages.ReasonQueueFull)
	}
	end, err := v.d.checks.begin(v.r.Context(), len(raw.bytes))
	if err != nil {
		return nil, about, refusal(messages.ReasonQueueFull)
	}
	defer end()
	serving := openai.Serving{Model: model, Slots: v.d.bounds.MaxInFlight, DropUnknown: v.d.bounds.DropUnknown}
	text, about, bad := openai.Check(bodies[v.route], raw.bytes, serving, out.bytes)
	if bad != nil {
		return nil, about, &problem{reason: bad.Reason, param: bad.Param, text: bad.Error()}
	}
	if !out.become(text) {
		return nil, about, refusal(messages.ReasonQueueFull)
	}
	return out, about, nil
}

// plainJSON reports whether the header announces JSON in UTF-8 without content coding.
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

// explain returns the answer for a failed call.
func explain(r relay.Result, about openai.Result, context int) *problem {
	p := refusal(r.Reason)
	switch {
	case r.TooLong && r.PromptTokens > 0:
		p.text, p.limit, p.param = textTooLongBy, fmt.Sprintf("%d tokens, and the context holds %d", r.PromptTokens, context), ""
	case r.TooLong:
		p.text, p.limit = textTooLong, strconv.Itoa(context)
	case r.Template:
		p.text, p.param = textTemplate, "messages"
	case r.Unsupported && about.Images:
		p.text = textNoImages
	case r.Unsupported && about.Audio:
		p.text = textNoAudio
	case r.Unsupported:
		p.text = textUnsupported
	}
	return p
}
