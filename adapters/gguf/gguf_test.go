package gguf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is a key with its value: a text, a number, or an array of them.
type pair struct {
	name  string
	value any
}

// file makes a header with these keys.
func file(pairs ...pair) []byte {
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) }
	text := func(s string) { put(uint64(len(s))); b.WriteString(s) }
	b.WriteString("GGUF")
	put(uint32(3))
	put(uint64(7))
	put(uint64(len(pairs)))
	for _, p := range pairs {
		text(p.name)
		switch v := p.value.(type) {
		case string:
			put(uint32(kindText))
			text(v)
		case uint32:
			put(uint32(4))
			put(v)
		case int32:
			put(uint32(5))
			put(v)
		case uint64:
			put(uint32(10))
			put(v)
		case bool:
			put(uint32(7))
			put(v)
		case float32:
			put(uint32(6))
			put(v)
		case []string:
			put(uint32(kindArray))
			put(uint32(kindText))
			put(uint64(len(v)))
			for _, s := range v {
				text(s)
			}
		case []int32:
			put(uint32(kindArray))
			put(uint32(5))
			put(uint64(len(v)))
			put(v)
		case []float32:
			put(uint32(kindArray))
			put(uint32(6))
			put(uint64(len(v)))
			put(v)
		}
	}
	return b.Bytes()
}

var arch = pair{"general.architecture", "llama"}

// L9: the numbers of a header, against values computed by hand.
func TestRead(t *testing.T) {
	for name, c := range map[string]struct {
		pairs   []pair
		context int
		kv      int64
	}{
		"grouped": {[]pair{arch, {"llama.context_length", uint32(8192)}, {"llama.block_count", uint32(30)}, {"llama.attention.head_count", uint32(9)},
			{"llama.attention.head_count_kv", uint32(3)}, {"llama.embedding_length", uint32(576)}}, 8192, 30 * 3 * (64 + 64) * 2},
		"own sizes": {[]pair{arch, {"llama.context_length", uint64(32768)}, {"llama.block_count", uint32(18)}, {"llama.attention.head_count", uint32(4)}, {"llama.attention.head_count_kv", uint32(1)},
			{"llama.attention.key_length", uint32(256)}, {"llama.attention.value_length", uint32(128)}, {"llama.embedding_length", uint32(640)}}, 32768, 18 * (256 + 128) * 2},
		"not grouped":   {[]pair{arch, {"llama.block_count", uint32(2)}, {"llama.attention.head_count", uint32(4)}, {"llama.embedding_length", uint32(64)}}, 0, 2 * 4 * (16 + 16) * 2},
		"by layer":      {[]pair{arch, {"llama.block_count", uint32(3)}, {"llama.attention.head_count", uint32(4)}, {"llama.attention.head_count_kv", []int32{2, 0, 4}}, {"llama.embedding_length", uint32(64)}}, 0, 6 * 32 * 2},
		"others passed": {[]pair{{"x", []float32{1, 2}}, {"y", float32(1)}, {"z", []string{"a", strings.Repeat("b", 1000)}}, arch, {"t", strings.Repeat("c", 5000)}, {"llama.context_length", int32(512)}}, 512, 0},
		"other prefix":  {[]pair{arch, {"gemma.context_length", uint32(512)}}, 0, 0},
		"nonsense":      {[]pair{arch, {"llama.context_length", uint64(1) << 63}, {"llama.block_count", uint32(1 << 31)}, {"llama.attention.head_count", uint32(1)}, {"llama.embedding_length", uint32(64)}}, 0, 0},
		"huge heads": {[]pair{arch, {"llama.block_count", uint32(4096)}, {"llama.attention.head_count", uint32(1)}, {"llama.attention.head_count_kv", uint32(1 << 31)},
			{"llama.embedding_length", uint32(64)}}, 0, 0},
		"heads wrap around": {[]pair{arch, {"llama.block_count", uint32(4096)}, {"llama.attention.head_count", uint64(1)<<52 + 1}, {"llama.attention.key_length", uint32(64)},
			{"llama.attention.value_length", uint32(64)}}, 0, 0},
		"shared heads wrap around": {[]pair{arch, {"llama.block_count", uint32(4096)}, {"llama.attention.head_count", uint32(1)}, {"llama.attention.head_count_kv", uint64(1)<<52 + 1},
			{"llama.embedding_length", uint32(64)}}, 0, 0},
		"sizes wrap around": {[]pair{arch, {"llama.block_count", uint32(1)}, {"llama.attention.head_count", uint32(1)}, {"llama.attention.key_length", uint64(1) << 63},
			{"llama.attention.value_length", uint64(1) << 63}}, 0, 0},
		"negative": {[]pair{arch, {"llama.context_length", int32(-1)}, {"llama.block_count", int32(-1)}}, 0, 0},
	} {
		h, err := Read(bytes.NewReader(file(c.pairs...)))
		if err != nil || h.Context() != c.context || h.KVBytes() != c.kv {
			t.Errorf("%s: got context %d, %d bytes a token, %v, want %d, %d", name, h.Context(), h.KVBytes(), err, c.context, c.kv)
		}
	}
}

// L13: the tokens for filling in the middle, by their ids or by their texts; all three must be there.
func TestInfill(t *testing.T) {
	ids := func(pre, suf, mid string) []pair {
		return []pair{arch, {"tokenizer.ggml." + pre + "_token_id", uint32(7)}, {"tokenizer.ggml." + suf + "_token_id", uint32(0)}, {"tokenizer.ggml." + mid + "_token_id", uint32(9)}}
	}
	for name, c := range map[string]struct {
		pairs []pair
		want  Infill
		ok    bool

		vocabulary int
	}{
		"by id":       {ids("fim_pre", "fim_suf", "fim_mid"), Infill{none, 7, 0, 9}, true, 0},
		"older names": {ids("prefix", "suffix", "middle"), Infill{none, 7, 0, 9}, true, 0},
		"by text":     {[]pair{arch, {"tokenizer.ggml.tokens", []string{"a", "<|fim_suffix|>", "<|fim_prefix|>", "<|fim_middle|>", "<PRE>"}}}, Infill{none, 2, 1, 3}, true, 5},
		"id first":    {append(ids("fim_pre", "fim_suf", "fim_mid"), pair{"tokenizer.ggml.tokens", []string{"<PRE>"}}), Infill{none, 7, 0, 9}, true, 1},
		"begin":       {append(ids("fim_pre", "fim_suf", "fim_mid"), pair{"tokenizer.ggml.add_bos_token", true}, pair{"tokenizer.ggml.bos_token_id", uint32(2)}), Infill{2, 7, 0, 9}, true, 0},
		"no begin":    {append(ids("fim_pre", "fim_suf", "fim_mid"), pair{"tokenizer.ggml.add_bos_token", false}, pair{"tokenizer.ggml.bos_token_id", uint32(2)}), Infill{none, 7, 0, 9}, true, 0},
		"two only":    {[]pair{arch, {"tokenizer.ggml.tokens", []string{"<PRE>", "<SUF>"}}}, Infill{none, 0, 1, none}, false, 2},
		"none":        {[]pair{arch}, Infill{none, none, none, none}, false, 0},
		"bad id":      {[]pair{arch, {"tokenizer.ggml.fim_pre_token_id", uint64(1) << 40}, {"tokenizer.ggml.tokens", []string{"<SUF>", "<MID>"}}}, Infill{none, none, 0, 1}, false, 2},
	} {
		h, err := Read(bytes.NewReader(file(c.pairs...)))
		if c.vocabulary != h.Vocabulary() {
			t.Errorf("%s: got a vocabulary of %d, want %d", name, h.Vocabulary(), c.vocabulary)
		}
		if got, ok := h.Infill(); err != nil || got != c.want || ok != c.ok {
			t.Errorf("%s: got %+v, %v, %v, want %+v, %v", name, got, ok, err, c.want, c.ok)
		}
	}
	if _, ok := (Header{}).Infill(); ok {
		t.Error("the zero Header: got tokens, want none")
	}
}

// M16: what kind of file the header describes.
func TestKindOfFile(t *testing.T) {
	split := func(no, count uint32) []pair { return []pair{arch, {"split.no", no}, {"split.count", count}} }
	for name, c := range map[string]struct {
		pairs        []pair
		architecture string
		embedding    bool
		part, parts  int
	}{
		"one file":   {[]pair{arch}, "llama", false, 0, 0},
		"embedding":  {[]pair{arch, {"llama.pooling_type", uint32(1)}}, "llama", true, 0, 0},
		"no pooling": {[]pair{arch, {"llama.pooling_type", uint32(0)}}, "llama", false, 0, 0},
		"projector":  {[]pair{{"general.architecture", "clip"}}, "clip", false, 0, 0},
		"last part":  {split(2, 3), "llama", false, 3, 3},
		"only part":  {split(0, 1), "llama", false, 0, 0},
		"beyond":     {split(3, 3), "llama", false, 0, 0},
		"too many":   {split(0, mostParts+1), "llama", false, 0, 0},
	} {
		h, err := Read(bytes.NewReader(file(c.pairs...)))
		part, parts := h.Part()
		if err != nil || h.Architecture() != c.architecture || h.Embedding() != c.embedding || part != c.part || parts != c.parts {
			t.Errorf("%s: got %q, %v, part %d of %d, %v, want %+v", name, h.Architecture(), h.Embedding(), part, parts, err, c)
		}
	}
}

// M17: the parts 2 to n of a split model name no architecture, and the names of the files follow from the name of the first.
func TestParts(t *testing.T) {
	for no, good := range map[uint32]bool{0: false, 1: true, 2: true, 3: false} {
		h, err := Read(bytes.NewReader(file(pair{"split.no", no}, pair{"split.count", uint32(3)})))
		if part, _ := h.Part(); (err == nil) != good || good && part != int(no)+1 {
			t.Errorf("split.no %d without an architecture: got part %d, %v, want accepted: %t", no, part, err, good)
		}
	}
	got, ok := PartFiles("/d/m-00001-of-00003.gguf", 3)
	if want := []string{"/d/m-00002-of-00003.gguf", "/d/m-00003-of-00003.gguf"}; !ok || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, ok, want)
	}
	for _, name := range []string{"m.gguf", "m-00002-of-00003.gguf", "m-00001-of-00004.gguf", "m-1-of-3.gguf", "m-00001-of-00003.bin"} {
		if got, ok := PartFiles(name, 3); ok {
			t.Errorf("%s: got %q, want none", name, got)
		}
	}
	if got := WithoutPart("m-00001-of-00003.gguf"); got != "m.gguf" {
		t.Errorf("got %q, want m.gguf", got)
	}
}

// M6: a header that is cut off, or claims more than the limits, is refused without taking the claimed memory.
func TestReadRefuses(t *testing.T) {
	good := file(arch, pair{"tokenizer.ggml.tokens", []string{"a", "b"}}, pair{"llama.context_length", uint32(1)})
	if _, err := Read(bytes.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if _, err := Read(bytes.NewReader(good[:n])); !errors.Is(err, ErrFormat) {
			t.Errorf("the first %d bytes: got %v, want %v", n, err, ErrFormat)
		}
	}
	change := func(at int, b byte) []byte { c := bytes.Clone(good); c[at] = b; return c }
	text := bytes.Index(good, []byte("general"))
	for name, data := range map[string][]byte{
		"magic": change(0, 'X'), "version 1": change(4, 1), "version 4": change(4, 4), "big-endian": change(7, 3), "many keys": change(18, 2),
		"long text": change(text-4, 1), "unknown kind": change(text+len(arch.name), 13), "no architecture": file(pair{"x", uint32(1)}),
		"empty": nil,
	} {
		if _, err := Read(bytes.NewReader(data)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: got %v, want %v", name, err, ErrFormat)
		}
	}
}

// M6: a header keeps only the numbers that are used, and refuses more of them than a model can have.
func TestReadKeepsLittle(t *testing.T) {
	layers := make([]int32, maxNumbers)
	pairs := []pair{{"llama.context_length", uint32(512)}, {"other.context_length", uint32(1)}, {"split.no", uint32(0)}}
	for i := range 2 * maxRead / maxNumbers {
		pairs = append(pairs, pair{fmt.Sprintf("x.%d", i), layers}, pair{fmt.Sprintf("y.%d", i), uint32(1)})
	}
	h, err := Read(bytes.NewReader(file(append(pairs, arch)...)))
	if err != nil || h.Context() != 512 || len(h.numbers) != 2 {
		t.Errorf("got %d keys with a context of %d, %v, want the 2 keys in use and 512", len(h.numbers), h.Context(), err)
	}
	for name, key := range map[string]string{"many architectures": "x%d.attention.head_count_kv", "one key": "llama.attention.head_count_kv"} {
		pairs := []pair{arch}
		for i := range maxRead/maxNumbers + 1 {
			pairs = append(pairs, pair{strings.Replace(key, "%d", fmt.Sprint(i), 1), layers})
		}
		if _, err := Read(bytes.NewReader(file(pairs[:len(pairs)-1]...))); err != nil {
			t.Errorf("%s, within the limit: got %v, want no error", name, err)
		}
		if _, err := Read(bytes.NewReader(file(pairs...))); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: got %v, want %v", name, err, ErrFormat)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(file(arch, pair{"llama.attention.head_count_kv", []int32{1, 2}}, pair{"tokenizer.ggml.tokens", []string{"<PRE>"}}))
	f.Add([]byte("GGUF"))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := Read(bytes.NewReader(data))
		if err != nil && h.architecture != "" {
			t.Errorf("got %+v with %v, want the zero Header", h, err)
		}
		if h.Context() < 0 || h.KVBytes() < 0 {
			t.Errorf("got context %d and %d bytes a token, want none below 0", h.Context(), h.KVBytes())
		}
	})
}

// E6: control tokens of a form of their own are found by their kind in the vocabulary.
func TestControl(t *testing.T) {
	tokens := pair{"tokenizer.ggml.tokens", []string{"a", "<|im_end|>", "@@SYS@@", "{{turn}}", "#x", "[INST]", "word", "::end"}}
	kinds := pair{"tokenizer.ggml.token_type", []int32{1, 3, 3, 3, 1, 3, 3, 4}}
	h, err := Read(bytes.NewReader(file(arch, tokens, kinds)))
	if want := []string{"@@SYS@@", "{{turn}}"}; err != nil || !slices.Equal(h.Control(), want) {
		t.Errorf("got %q, %v, want %q", h.Control(), err, want)
	}
	if h, err := Read(bytes.NewReader(file(arch, kinds, tokens))); err != nil || h.Control() != nil {
		t.Errorf("kinds before tokens: got %q, %v, want neither", h.Control(), err)
	}
	many := make([]string, 2*maxControl)
	all := make([]int32, len(many))
	for i := range many {
		many[i], all[i] = "@"+strings.Repeat("x", i%40)+"@", controlToken
	}
	h, err = Read(bytes.NewReader(file(arch, pair{tokens.name, many}, pair{kinds.name, all})))
	if err != nil || len(h.Control()) != maxControl {
		t.Errorf("got %d tokens, %v, want %d", len(h.Control()), err, maxControl)
	}
}
