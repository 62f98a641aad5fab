// Package gguf reads the header of a model file (GGUF, versions 2 and 3): how many tokens the model was trained for, how
// much memory a token of context takes, and the tokens for filling in the middle. The header is part of the verified
// file, but its content is the publisher's: every length is bounded, and no tensor is read.
package gguf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// Limits of a header. Real ones have about forty keys, and a vocabulary of a few megabytes.
const (
	maxHeader  = 256 << 20 // bytes of all keys and values
	maxKeys    = 1 << 16
	maxArray   = 1 << 24 // values
	maxText    = 16 << 20
	maxKept    = 256      // bytes of a text that is kept
	maxNumbers = 4096     // numbers of an array that are kept, such as one for each layer
	mostTokens = 16 << 20 // of a context; more is nonsense
)

// ErrFormat says that a file is no GGUF model, or that its header is beyond the limits.
var ErrFormat = errors.New("not a GGUF model")

// Header is what was read. The zero Header says nothing about a model.
type Header struct {
	architecture string
	numbers      map[string][]int64 // integers, and arrays of them, of the keys in use
	infill       Infill
	vocabulary   int
	tokens       []string // that may be control tokens, by their place in ids
	ids          []int
	control      []string
	tensors      uint64
}

// Infill holds the ids of the tokens that mark the parts of a text whose middle is to be filled in. Begin is the token
// that begins every text, or -1 if there is none.
type Infill struct{ Begin, Prefix, Suffix, Middle int }

// none marks a token that is not there; 0 is a valid id.
const none = -1

// Read reads a header.
func Read(from io.Reader) (Header, error) {
	r := &reader{from: bufio.NewReaderSize(io.LimitReader(from, maxHeader), 1<<16)}
	h := Header{numbers: map[string][]int64{}, infill: Infill{none, none, none, none}}
	if r.bytes(4) != "GGUF" {
		r.fail("it does not begin with GGUF")
	}
	// A big-endian file has its version in the upper byte.
	if version := r.unsigned(4); version < 2 || version > 3 {
		r.fail("its version is %d, want 2 or 3, little-endian", version)
	}
	h.tensors = r.unsigned(8)
	keys := r.unsigned(8)
	if keys > maxKeys {
		r.fail("it has %d keys, want %d at most", keys, maxKeys)
	}
	for i := uint64(0); i < keys && r.err == nil; i++ {
		r.key(&h)
	}
	// Only the first part of a split model describes it.
	if part, _ := h.Part(); h.architecture == "" && part < 2 {
		r.fail("it names no architecture")
	}
	if r.err != nil {
		return Header{}, fmt.Errorf("%w: %w", ErrFormat, r.err)
	}
	h.tokens, h.ids = nil, nil
	h.dropUnused()
	return h, nil
}

// Control returns the tokens of the vocabulary that control a chat and whose text does not begin with "<" or "[", at
// most 256. Those that do begin so are recognized by their form; real vocabularies have thousands of them.
func (h Header) Control() []string { return h.control }

// Architecture is such as "llama", and "clip" for a projector.
func (h Header) Architecture() string { return h.architecture }

// Empty reports whether the file has no tensors.
func (h Header) Empty() bool { return h.tensors == 0 }

// Embedding reports whether the model computes embeddings: its header names a pooling of the tokens.
func (h Header) Embedding() bool { return h.one("pooling_type") > 0 }

// Part says which part of how many the file is, if the model is split: parts are counted from 1. Otherwise both are 0.
func (h Header) Part() (part, parts int) {
	no, count := h.numbers["split.no"], h.numbers["split.count"]
	if len(no) != 1 || len(count) != 1 || count[0] < 2 || no[0] < 0 || no[0] >= count[0] || count[0] > mostParts {
		return 0, 0
	}
	return int(no[0]) + 1, int(count[0])
}

// mostParts bounds the parts of a split model.
const mostParts = 1000

// Context is how many tokens the model was trained for; 0: the header does not say.
func (h Header) Context() int {
	n := h.one("context_length")
	if n < 1 || n > mostTokens {
		return 0
	}
	return int(n)
}

// Vocabulary is how many tokens the model knows; 0: the header does not say.
func (h Header) Vocabulary() int { return h.vocabulary }

// Infill returns the tokens for filling in the middle, if the model has all three.
func (h Header) Infill() (Infill, bool) {
	i := h.infill
	for at, names := range [][]string{{"fim_pre", "prefix"}, {"fim_suf", "suffix"}, {"fim_mid", "middle"}} {
		for _, name := range names {
			if id, found := h.numbers["tokenizer.ggml."+name+"_token_id"]; found && len(id) == 1 && id[0] >= 0 && id[0] <= math.MaxInt32 {
				*[]*int{&i.Prefix, &i.Suffix, &i.Middle}[at] = int(id[0])
				break
			}
		}
	}
	if add := h.numbers["tokenizer.ggml.add_bos_token"]; len(add) == 1 && add[0] != 0 {
		if id := h.numbers["tokenizer.ggml.bos_token_id"]; len(id) == 1 && id[0] >= 0 && id[0] <= math.MaxInt32 {
			i.Begin = int(id[0])
		}
	}
	return i, i.Prefix >= 0 && i.Suffix >= 0 && i.Middle >= 0 && h.architecture != ""
}

// bytesPerValue is the size of a key or value in the runtime's memory of the context (f16, its default).
const bytesPerValue = 2

// KVBytes is how much memory one token of context takes at most, in bytes; 0: it cannot be computed. Layers with a
// sliding window or without attention take less than this says.
func (h Header) KVBytes() int64 {
	// Bounded before it is multiplied or added, no number wraps around.
	const most = 1 << 30 // bytes a token; more is nonsense
	layers, heads, width := h.one("block_count"), h.one("attention.head_count"), h.one("embedding_length")
	if layers < 1 || layers > 4096 || heads > most {
		return 0
	}
	size := func(name string) int64 {
		if n := h.one(name); n > 0 {
			return n
		}
		if heads < 1 {
			return 0
		}
		return width / heads
	}
	key, value := size("attention.key_length"), size("attention.value_length")
	shared := h.numbers[h.architecture+".attention.head_count_kv"]
	if key > most || value > most || h.one("attention.head_count_kv") > most {
		return 0
	}
	perHead := key + value
	var all int64 // of the layers
	switch {
	case len(shared) == 0:
		all = layers * heads
	case len(shared) == 1:
		all = layers * max(shared[0], 0)
	default:
		for _, n := range shared[:min(int64(len(shared)), layers)] {
			all += max(n, 0)
		}
	}
	if perHead < 1 || perHead > most || all < 1 || all > most || perHead*all > most {
		return 0
	}
	return perHead * all * bytesPerValue
}

// one returns a number of the architecture, or 0. Of an array it is the largest.
func (h Header) one(name string) int64 {
	most := int64(0)
	for _, n := range h.numbers[h.architecture+"."+name] {
		most = max(most, n)
	}
	return most
}

// reader reads little-endian values. After an error it returns zero values.
type reader struct {
	from *bufio.Reader
	err  error
	kept int // numbers, of all keys
}

// The kinds of a value that are not a number of a fixed size.
const (
	kindText  = 8
	kindArray = 9
)

// sizes are the sizes in bytes of the other kinds, and whether they are integers.
var sizes = map[uint64]struct {
	bytes   int
	integer bool
}{0: {1, true}, 1: {1, true}, 2: {2, true}, 3: {2, true}, 4: {4, true}, 5: {4, true}, 6: {4, false}, 7: {1, true}, 10: {8, true}, 11: {8, true}, 12: {8, false}}

// key reads one key with its value.
func (r *reader) key(h *Header) {
	name, kind := r.text(), r.unsigned(4)
	switch {
	case kind == kindText:
		if text := r.text(); name == "general.architecture" {
			h.architecture = text
		}
	case kind == kindArray:
		r.array(h, name)
	case sizes[kind].bytes == 0:
		r.fail("a value has the unknown kind %d", kind)
	default:
		if n := r.number(kind); sizes[kind].integer && used(name) {
			r.keep(h, name, []int64{n})
		}
	}
}

const tokens = "tokenizer.ggml.tokens"

// Bounds of the tokens that Control returns, and the kind of a token that controls a chat.
const (
	maxControl      = 256
	maxControlBytes = 48
	maxCandidates   = 1 << 16
	controlToken    = 3
)

// seeToken keeps a token that may control a chat: it has a character that words do not have. Kinds of tokens follow
// the tokens in a file.
func (h *Header) seeToken(text string, id int) {
	if len(text) < 2 || len(text) > maxControlBytes || text[0] == '<' || text[0] == '[' || strings.Contains(text, "\n") || len(h.tokens) == maxCandidates {
		return
	}
	if strings.ContainsAny(text, "<>[]{}|/\\#@:=_") {
		h.tokens, h.ids = append(h.tokens, text), append(h.ids, id)
	}
}

// kinds reads the kinds of all tokens.
func (r *reader) kinds(h *Header, kind, length uint64) {
	next := 0
	for i := uint64(0); i < length && r.err == nil; i++ {
		n := r.number(kind)
		if next == len(h.ids) || h.ids[next] != int(i) {
			continue
		}
		if n == controlToken && len(h.control) < maxControl {
			h.control = append(h.control, h.tokens[next])
		}
		next++
	}
}

// array keeps numbers, and finds the tokens for filling in the middle and those that control a chat.
func (r *reader) array(h *Header, name string) {
	kind, length := r.unsigned(4), r.unsigned(8)
	if length > maxArray {
		r.fail("an array has %d values, want %d at most", length, maxArray)
		return
	}
	if size := sizes[kind]; size.bytes > 0 {
		if name == "tokenizer.ggml.token_type" && size.integer {
			r.kinds(h, kind, length)
			return
		}
		if !size.integer || length > maxNumbers || !used(name) {
			r.skip(int64(length) * int64(size.bytes))
			return
		}
		var numbers []int64
		for i := uint64(0); i < length && r.err == nil; i++ {
			numbers = append(numbers, r.number(kind))
		}
		r.keep(h, name, numbers)
		return
	}
	if kind != kindText {
		r.fail("an array has values of the unknown kind %d", kind)
		return
	}
	for i := uint64(0); i < length && r.err == nil; i++ {
		if text := r.text(); name == tokens {
			h.infill.see(text, int(i))
			h.seeToken(text, int(i))
		}
	}
	if name == tokens {
		h.vocabulary = int(length)
	}
}

// infillTokens are the texts by which the runtime recognizes the tokens, where the header does not name their ids.
var infillTokens = map[string]int{
	"<|fim_prefix|>": 0, "<fim-prefix>": 0, "<fim_prefix>": 0, "<｜fim▁begin｜>": 0, "<PRE>": 0, "▁<PRE>": 0, "<|code_prefix|>": 0,
	"<|fim_suffix|>": 1, "<fim-suffix>": 1, "<fim_suffix>": 1, "<｜fim▁hole｜>": 1, "<SUF>": 1, "▁<SUF>": 1, "<|code_suffix|>": 1,
	"<|fim_middle|>": 2, "<fim-middle>": 2, "<fim_middle>": 2, "<｜fim▁end｜>": 2, "<MID>": 2, "▁<MID>": 2, "<|code_middle|>": 2,
}

func (i *Infill) see(text string, id int) {
	at, known := infillTokens[text]
	if !known {
		return
	}
	if token := []*int{&i.Prefix, &i.Suffix, &i.Middle}[at]; *token == none {
		*token = id
	}
}

// text reads a text. Of a long one it returns nothing.
func (r *reader) text() string {
	length := r.unsigned(8)
	switch {
	case length > maxText:
		r.fail("a text has %d bytes, want %d at most", length, maxText)
		return ""
	case length > maxKept:
		r.skip(int64(length))
		return ""
	}
	return r.bytes(int(length))
}

// number reads an integer, and another number as if it were one.
func (r *reader) number(kind uint64) int64 {
	n := r.unsigned(sizes[kind].bytes)
	switch kind { // the signed ones
	case 1:
		return int64(int8(n))
	case 3:
		return int64(int16(n))
	case 5:
		return int64(int32(n))
	}
	return int64(min(n, math.MaxInt64))
}

func (r *reader) unsigned(size int) uint64 {
	var data [8]byte
	if r.err == nil {
		if _, err := io.ReadFull(r.from, data[:size]); err != nil {
			r.fail("its header is cut off or too long")
			return 0
		}
	}
	return binary.LittleEndian.Uint64(data[:])
}

func (r *reader) bytes(n int) string {
	data := make([]byte, n)
	if r.err != nil {
		return ""
	}
	if _, err := io.ReadFull(r.from, data); err != nil {
		r.fail("its header is cut off or too long")
		return ""
	}
	return string(data)
}

func (r *reader) skip(n int64) {
	if r.err != nil {
		return
	}
	if _, err := r.from.Discard(int(n)); err != nil {
		r.fail("its header is cut off or too long")
	}
}

// fail keeps the first error.
func (r *reader) fail(format string, values ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, values...)
	}
}
