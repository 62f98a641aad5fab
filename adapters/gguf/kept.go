package gguf

import (
	"maps"
	"strings"
)

// maxRead bounds the numbers of all keys that are kept while a header is read.
const maxRead = 1 << 16

// The keys whose numbers are used: those that follow the name of an architecture, and the others. A header keeps no other,
// because it stays in memory for as long as the program runs.
var (
	ofArchitecture = map[string]bool{
		"pooling_type": true, "context_length": true, "block_count": true, "embedding_length": true, "attention.head_count": true,
		"attention.head_count_kv": true, "attention.key_length": true, "attention.value_length": true,
	}
	others = map[string]bool{
		"split.no": true, "split.count": true, "tokenizer.ggml.add_bos_token": true, "tokenizer.ggml.bos_token_id": true,
		"tokenizer.ggml.fim_pre_token_id": true, "tokenizer.ggml.fim_suf_token_id": true, "tokenizer.ggml.fim_mid_token_id": true,
		"tokenizer.ggml.prefix_token_id": true, "tokenizer.ggml.suffix_token_id": true, "tokenizer.ggml.middle_token_id": true,
	}
)

// used reports whether the numbers of a key may be used. The key that names the architecture need not come first.
func used(name string) bool {
	if others[name] {
		return true
	}
	for at := range len(name) {
		if name[at] == '.' && ofArchitecture[name[at+1:]] {
			return true
		}
	}
	return false
}

// keep keeps the numbers of a key. A key that comes again counts again.
func (r *reader) keep(h *Header, name string, numbers []int64) {
	if r.kept += len(numbers); r.kept > maxRead {
		r.fail("its keys have more than %d numbers", maxRead)
		return
	}
	h.numbers[name] = numbers
}

// dropUnused drops the keys of other architectures.
func (h *Header) dropUnused() {
	maps.DeleteFunc(h.numbers, func(name string, _ []int64) bool {
		own, found := strings.CutPrefix(name, h.architecture+".")
		return !others[name] && !(found && ofArchitecture[own])
	})
}
