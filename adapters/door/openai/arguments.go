package openai

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// arguments is the JSON of a tool call in a string. Chat templates make the runtime parse it, so it has the bounds
// of the body itself, and is encoded again. The runtime fails at a text that is not JSON, and clients send such texts
// back: the arguments of a call that max_tokens cut off, and an empty text for a call without arguments. So the runtime
// gets an object: an empty one, or one with the text in it.
type arguments struct{}

func (arguments) describe() string {
	return "a string; the JSON in it is nested at most " + strconv.Itoa(maxDepth) + " levels"
}

func (arguments) read(r *reader) *Error {
	b, err := r.text()
	if err != nil {
		return err
	}
	r.seen.textBytes += len(b)
	written, err := r.inner(bytes.TrimPrefix(b, []byte("\ufeff"))) // the runtime's parser skips this mark
	switch {
	case err == nil:
		r.out = appendQuoted(r.out, written)
		return nil
	case err.fault != faultNotJSON:
		return err
	case nesting(b) > maxDepth:
		return fault(faultTooDeep, strconv.Itoa(maxDepth))
	}
	const open, end = `{"invalid_json":`, "}"
	instead := []byte("{}")
	if len(bytes.TrimSpace(b)) > 0 {
		instead = slices.Grow(r.innerOut[:0], len(open)+quotedSize(b)+len(end))
		instead = append(appendQuoted(append(instead, open...), b), end...)
		r.innerOut = instead
	}
	r.out = appendQuoted(slices.Grow(r.out, quotedSize(instead)), instead)
	return nil
}

// quotedSize is at least the size of b in quotes. Growing by steps would take several times as much.
func quotedSize(b []byte) int {
	size := len(b) + len(`""`)
	for _, c := range b {
		switch {
		case c == '"' || c == '\\':
			size++
		case c < ' ':
			size += len(`\u0000`) - 1
		}
	}
	return size
}

// inner reads b as one JSON value and returns it encoded again, until the next call. b may be in r.scratch.
func (r *reader) inner(b []byte) (written []byte, bad *Error) {
	dec, scratch, out, names, objects := r.dec, r.scratch, r.out, len(r.names), len(r.objects)
	defer func() {
		r.innerScratch, r.innerOut = r.scratch, r.out
		r.dec, r.scratch, r.out = dec, scratch, out
		r.names, r.objects = r.names[:names], r.objects[:objects]
	}()
	r.innerSource = *bytes.NewBuffer(b)
	r.innerDec.Reset(&r.innerSource, jsontext.AllowDuplicateNames(true))
	r.dec, r.scratch, r.out = r.innerDec, r.innerScratch, r.innerOut[:0]
	if cap(r.out) < len(b) {
		r.out = make([]byte, 0, len(b)+64)
	}
	if err := (&anything{}).read(r); err != nil {
		return nil, err
	}
	if _, err := r.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, notJSON()
	}
	return r.out, nil
}

// nesting is how deep the brackets outside of strings are nested.
func nesting(b []byte) (deepest int) {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			depth++
			deepest = max(deepest, depth)
		case (c == ']' || c == '}') && depth > 0:
			depth--
		}
	}
	return deepest
}
