package frontdoor

import (
	"bytes"
	"container/list"
	"crypto/sha256"
	"hash"
	"slices"
	"strconv"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"companion/messages"
)

// digest is a SHA-256 sum; the zero digest stands for a part that the request does not have.
type digest [sha256.Size]byte

// fingerprint identifies a checked request without keeping anything of its text.
type fingerprint struct {
	whole  digest // all fields that can matter to the runtime, in any order
	text   digest // the messages, prompt or input
	folded digest // the same without white space and letter case
	format digest // the schemas and tools
}

// all returns the digests of the request and of the parts that it has, as they were sent.
func (f *fingerprint) all() []digest {
	all := []digest{f.whole}
	for _, d := range []digest{f.text, f.format} {
		if d != (digest{}) {
			all = append(all, d)
		}
	}
	return all
}

// Fields of a checked body that cannot decide whether it ends the runtime: the seed of the sampler, whether a
// cached prompt is used, how the answer is sent, and the name of the only model there is.
var immaterial = map[string]bool{"seed": true, "cache_prompt": true, "stream": true, "stream_options": true, "model": true}

var (
	textFields = map[string]bool{
		"messages": true, "prompt": true, "input": true, "input_prefix": true, "input_suffix": true, "input_extra": true,
	}
	formatFields = map[string]bool{"response_format": true, "tools": true, "tool_choice": true}
)

// fingerprintOf digests a body that openai.Check has made: its JSON is valid, has no spaces between tokens, and
// no field twice. The order of the fields is the caller's, and does not count.
func fingerprintOf(route string, model messages.Model, body []byte) fingerprint {
	var whole, text, folded, format []digest
	dec := jsontext.NewDecoder(bytes.NewBuffer(body))
	_, _ = dec.ReadToken()
	for dec.PeekKind() == '"' {
		token, err := dec.ReadToken()
		if err != nil {
			break
		}
		name := token.String()
		value, err := dec.ReadValue()
		if err != nil {
			break
		}
		if immaterial[name] {
			continue
		}
		h := sha256.New()
		write(h, name)
		_, _ = h.Write(value)
		d := digest(h.Sum(nil))
		whole = append(whole, d)
		switch {
		case textFields[name]:
			text = append(text, d)
			h.Reset()
			write(h, name)
			fold(h, value)
			folded = append(folded, digest(h.Sum(nil)))
		case formatFields[name]:
			format = append(format, d)
		}
	}
	of := func(kind string, fields []digest) digest {
		if len(fields) == 0 {
			return digest{}
		}
		slices.SortFunc(fields, func(a, b digest) int { return bytes.Compare(a[:], b[:]) })
		h := sha256.New()
		for _, s := range []string{kind, route, model.Name, model.Version} {
			write(h, s)
		}
		for _, d := range fields {
			_, _ = h.Write(d[:])
		}
		return digest(h.Sum(nil))
	}
	return fingerprint{whole: of("whole", whole), text: of("text", text), folded: of("folded", folded), format: of("format", format)}
}

// fold writes a checked JSON value without white space, invisible characters and letter case. Its result need not
// be JSON.
func fold(h hash.Hash, value []byte) {
	out := make([]byte, 0, 1<<10)
	for len(value) > 0 {
		if cap(out)-len(out) < utf8.UTFMax {
			_, _ = h.Write(out)
			out = out[:0]
		}
		c, size := utf8.DecodeRune(value)
		if c == '\\' {
			c, size = escaped(value)
		}
		value = value[size:]
		if c > ' ' && !unicode.IsSpace(c) && !unicode.In(c, unicode.Cc, unicode.Cf) {
			out = utf8.AppendRune(out, unicode.ToLower(c))
		}
	}
	_, _ = h.Write(out)
}

// escaped reads an escape of a valid JSON string. An escaped quote or backslash keeps its backslash in the length
// only: the digest need not tell it from the character.
func escaped(value []byte) (c rune, size int) {
	switch value[1] {
	case 'b', 'f', 'n', 'r', 't':
		return ' ', 2
	case 'u':
		n, _ := strconv.ParseUint(string(value[2:6]), 16, 16)
		return rune(n), 6
	}
	return rune(value[1]), 2
}

// write adds a string that cannot run into the next one.
func write(h hash.Hash, s string) {
	_, _ = h.Write([]byte(s))
	_, _ = h.Write([]byte{0})
}

// ring is a map that holds the max digests that were set last.
type ring[V any] struct {
	values map[digest]V
	places map[digest]*list.Element
	order  *list.List // of digest; the one that was set last is at the back
	max    int
}

func newRing[V any](max int) ring[V] {
	return ring[V]{values: map[digest]V{}, places: map[digest]*list.Element{}, order: list.New(), max: max}
}

func (r *ring[V]) get(d digest) (V, bool) {
	v, known := r.values[d]
	return v, known
}

func (r *ring[V]) has(d digest) bool {
	_, known := r.values[d]
	return known
}

func (r *ring[V]) set(d digest, v V) {
	if place, known := r.places[d]; known {
		r.order.MoveToBack(place)
	} else {
		if r.order.Len() == r.max {
			r.drop(r.order.Front().Value.(digest))
		}
		r.places[d] = r.order.PushBack(d)
	}
	r.values[d] = v
}

// drop forgets a digest.
func (r *ring[V]) drop(d digest) {
	if place, known := r.places[d]; known {
		r.order.Remove(place)
		delete(r.places, d)
		delete(r.values, d)
	}
}
