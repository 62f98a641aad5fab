package process

import (
	"strings"

	"go.uber.org/zap"

	"companion/adapters/gguf"
	"companion/adapters/runtime/probe"
	"companion/adapters/runtime/spawn"
	"companion/messages"
)

const (
	// unknownContext is the context of a model whose header does not say what it was trained for. An embedding model gets
	// no more by default either: it computes an input in one batch, whose memory grows with the square of the input.
	unknownContext = 4096
	// leastContext is the smallest default context, however little memory is free: a smaller one is useless.
	leastContext = 4096
	// contextShare is the share of the free memory, after the model's weights, that the context may take by default. The
	// rest is for the runtime's buffers and for the user's other programs.
	contextShare = 4
	// spareTokens of each share stay free: the runtime writes a few tokens beyond an answer when it checks a draft.
	spareTokens = 32
	// contextStep is what the runtime rounds a context to.
	contextStep = 256
)

// header reads the header of a model once. A header that cannot be read says nothing.
func (a *Actor) header(m messages.VerifiedModel) gguf.Header {
	a.headersMu.Lock()
	defer a.headersMu.Unlock()
	if h, known := a.headers[m.SHA256]; known {
		return h
	}
	h, err := readHeader(m)
	if err != nil {
		a.Log.Warn("header of the model not read: its context is not known", zap.String("reason", err.Error()))
		return gguf.Header{} // the file may change, so it is read again
	}
	a.headers[m.SHA256] = h
	return h
}

// readHeader reads the header of the verified file. A file of another kind at its place, such as a pipe, does not block.
func readHeader(m messages.VerifiedModel) (gguf.Header, error) {
	file, err := spawn.OpenModel(m)
	if err != nil {
		return gguf.Header{}, err
	}
	defer file.Close()
	return gguf.Read(file)
}

// model describes the model that a launch serves.
func (a *Actor) model(m messages.VerifiedModel, runtime messages.VerifiedRuntime) messages.Model {
	h := a.header(m)
	served := messages.Model{Name: m.Name, Version: m.Version, Embedding: m.Embedding, Own: m.Own, Trained: h.Context(), Asked: a.Context, Vocabulary: h.Vocabulary()}
	served.Control = strings.Join(h.Control(), "\n")
	if i, ok := h.Infill(); ok {
		served.Infill = messages.Infill{Known: true, Begin: i.Begin, Prefix: i.Prefix, Suffix: i.Suffix, Middle: i.Middle}
	}
	free := probe.FreeMemory()
	if a.MemoryLimit > 0 {
		free = min(free, a.MemoryLimit)
	}
	slots := max(a.MaxInFlight, 1)
	token := h.KVBytes()
	if token > 0 && a.Speculate {
		token += a.draftKVBytes(m)
	}
	room := memory{tokenBytes: token * int64(slots)}
	if free > 0 {
		room.free = max(free-weights(m, a.Speculate), 1)
	}
	request := wish{a.Context, m.Settings.Context}
	served.Context, served.ContextBy = contextOf(request, served.Trained, m.Embedding, room)
	served.Share = served.Context
	if served.ContextBy == messages.ContextMemory && slots > 1 && !m.Embedding && a.canShare(runtime) {
		room.tokenBytes = token
		if tokens, by := contextOf(request, served.Trained, m.Embedding, room); tokens/slots-spareTokens >= leastContext {
			served.Context, served.ContextBy, served.Share = tokens, by, tokens/slots-spareTokens
		}
	}
	if a.Context > served.Context {
		a.Log.Warn("model.context is larger than what can be served", zap.Int("configured", a.Context), zap.Int("trained", served.Trained),
			zap.Int("served", served.Context), zap.String("bound", string(served.ContextBy)))
	}
	return served
}

// canShare reports whether the requests of a runtime can share the memory of one context.
func (a *Actor) canShare(runtime messages.VerifiedRuntime) bool {
	a.headersMu.Lock()
	defer a.headersMu.Unlock()
	if can, known := a.sharing[runtime.SHA256]; known && runtime.Pinned {
		return can
	}
	can := spawn.CanShareContext(runtime)
	a.sharing[runtime.SHA256] = can
	return can
}

// memory is what a context is bounded by. A zero means that it is not known, and bounds nothing.
type memory struct {
	free       int64 // bytes, without the weights
	tokenBytes int64 // of one token in every slot
}

// wish is the context that was asked for, in tokens; 0: none.
type wish struct{ configured, published int }

// contextOf returns the tokens of a request's context and what limits them. What is configured wins over what the publisher of
// the model says.
func contextOf(w wish, trained int, embedding bool, room memory) (tokens int, by messages.ContextBound) {
	asked := w.configured
	switch {
	case asked == 0 && w.published > 0 && (trained == 0 || w.published <= trained):
		tokens, by = w.published, messages.ContextPublished
	case asked > 0 && (trained == 0 || asked <= trained):
		tokens, by = asked, messages.ContextConfigured
	case trained == 0 || asked == 0 && embedding && trained > unknownContext:
		tokens, by = unknownContext, messages.ContextDefault
	default: // the runtime, too, gives no request more than that
		tokens, by = trained, messages.ContextTrained
	}
	if room.free == 0 || room.tokenBytes == 0 {
		return tokens, by
	}
	fits := room.free / room.tokenBytes
	if asked == 0 {
		fits /= contextShare
	}
	if bound := int(min(max(fits/contextStep*contextStep, leastContext), int64(tokens))); bound < tokens {
		return bound, messages.ContextMemory
	}
	return tokens, by
}
