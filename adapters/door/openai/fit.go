package openai

import "fmt"

// tokenBytes is more than the bytes of any token of a real vocabulary: the longest known ones are runs of 128 blanks
// or signs (Llama 3, GPT-4o and Qwen). So a text of more than tokenBytes for each token of the context cannot fit.
const tokenBytes = 256

// checkFit refuses a prompt that cannot fit the context, before the runtime spends time on it: it applies its chat
// template and looks for tokens before it counts them. Each message and each part takes a token at least.
func (r *reader) checkFit() *Error {
	context := r.serving.Model.Context
	if context <= 0 {
		return nil
	}
	if n := r.seen.pieces; n > context {
		return fault(faultNoFit, fmt.Sprintf("%d messages and parts, and the context holds %d tokens", n, context))
	}
	if n := r.seen.textBytes; n/tokenBytes > context {
		return fault(faultNoFit, fmt.Sprintf("%d bytes of text, and the context holds %d tokens of at most %d bytes", n, context, tokenBytes))
	}
	return nil
}

// piece counts the messages and parts of a request.
func (s *seen) piece() { s.pieces++ }
