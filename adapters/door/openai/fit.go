package openai

import "fmt"

const (
	// tokenBytes is more than the bytes of any token of a real vocabulary: the longest known ones are runs of 128 blanks
	// or signs (Llama 3, GPT-4o and Qwen). So a text of more than tokenBytes for each token of the context cannot fit.
	tokenBytes = 256
	// maxPieces bounds the messages, parts and tool calls of a conversation: the runtime's time to apply a chat template
	// grows with the square of the messages, 1 s for this many and 13 s for four times as many, and each takes some KiB.
	maxPieces = 4096
	// maxReasoning bounds earlier reasoning, which many templates leave out: the runtime parses and copies it all the same.
	maxReasoning = 4 << 20
)

// checkFit refuses a prompt that cannot fit the context, before the runtime spends time on it: it applies its chat
// template and looks for tokens before it counts them. Each message, part and tool call takes a token at least.
func (r *reader) checkFit() *Error {
	pieces, text, reasoning, context := r.seen.pieces, r.seen.textBytes, r.seen.reasoningBytes, r.serving.Model.Context
	const things = "messages, parts and tool calls"
	switch {
	case context > 0 && pieces > context:
		return fault(faultNoFit, fmt.Sprintf("%d %s, and the context holds %d tokens", pieces, things, context))
	case context > 0 && text/tokenBytes > context:
		return fault(faultNoFit, fmt.Sprintf("%d bytes of text, and the context holds %d tokens of at most %d bytes", text, context, tokenBytes))
	case pieces > maxPieces:
		return fault(faultTooLarge, fmt.Sprintf("%d %s; at most %d are accepted", pieces, things, maxPieces))
	case reasoning > maxReasoning:
		return fault(faultTooLarge, fmt.Sprintf("%d bytes of earlier reasoning; at most %d are accepted", reasoning, maxReasoning))
	}
	return nil
}

// piece counts the messages, parts and tool calls of a request.
func (s *seen) piece() { s.pieces++ }
