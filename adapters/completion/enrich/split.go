package enrich

import (
	"strings"
	"sync"
	"unicode/utf8"
)

// maxCalls bounds the requests for one note. The text after the last request is left out, and the result says so.
const maxCalls = 24

// overhead is what instruction, template and quoting take of the context, in tokens.
const overhead = 320

// firstRatio is the bytes of note per token that the first request assumes. Prose has about four; quoted code and
// non-Latin scripts have down to two. An estimate that is too high costs one refused request.
const firstRatio = 3.2

// ratio is the bytes of note per token that the served model has shown so far. Safe for concurrent use.
type ratio struct {
	mu    sync.Mutex
	value float64 // zero: nothing is known
}

func (r *ratio) get() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.value == 0 {
		return firstRatio
	}
	return r.value
}

// learn takes the runtime's own count of the tokens of a prompt. size is the bytes of all that it quotes: title,
// vocabulary and text. It stays 8 % below what was seen, because the next note may have more tokens per byte.
func (r *ratio) learn(size int, tokens int64) {
	tokens -= overhead / 2
	if tokens < 64 {
		return
	}
	seen := float64(size) / float64(tokens) * 0.92
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.value == 0 {
		r.value = firstRatio
	}
	r.value = min(max((r.value+seen)/2, 0.5), 6)
}

// tooLong takes the refusal of a prompt: the estimate was too high.
func (r *ratio) tooLong() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.value = max(r.value*0.6, 0.3)
}

// split takes the next part of text, at most limit bytes, and returns what follows it. It ends a part before a
// heading, a paragraph, a line or a word, in this order.
func split(text string, limit int) (part, rest string) {
	if len(text) <= limit {
		return text, ""
	}
	if at := strings.LastIndex(text[:limit], "\n#"); at >= limit/2 {
		return text[:at], strings.TrimLeft(text[at:], "\n")
	}
	part, _ = cut(text, limit)
	if part == "" { // a limit below one character
		_, size := utf8.DecodeRuneInString(text)
		part = text[:size]
	}
	return part, strings.TrimLeft(text[len(part):], " \n")
}

// cut shortens text to at most limit bytes, at a paragraph, line or word where there is one in the last quarter.
// It reports whether anything was left out.
func cut(text string, limit int) (string, bool) {
	if len(text) <= limit {
		return text, false
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	short := text[:limit]
	for _, gap := range []string{"\n\n", "\n", " "} {
		if at := strings.LastIndex(short, gap); at >= limit*3/4 {
			return short[:at], true
		}
	}
	return short, true
}
