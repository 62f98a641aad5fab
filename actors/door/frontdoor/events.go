package frontdoor

import (
	"bytes"
	"slices"
	"strconv"
	"time"

	"companion/adapters/door/relay"
)

// Client libraries of the Responses and Anthropic formats need members that the runtime does not write. The types
// below insert them as text where an object begins, so events are not decoded, and the start of a long event is
// enough. A text of the model cannot look like a member, because its quotes are escaped.

// responseEvents completes an answer in the Responses format: the number of each event, the place of its item in the
// answer, and empty members of the answer itself.
type responseEvents struct {
	sequence int
	items    [][]byte // the ids of the items of the answer, in their order; at most maxItems
	model    string
	began    int64 // seconds since 1970
	bounds   bounds
	deltas   int  // events with a part of the answer; each has a token at least
	cutOff   bool // the last event says so
}

func newResponseEvents(model string, b bounds) *responseEvents {
	return &responseEvents{model: model, began: time.Now().Unix(), bounds: b}
}

const (
	responseMembers = wholeMember + otherMembers
	wholeMember     = `"incomplete_details":null,`
	// The runtime says that every answer is complete.
	cutMember    = `"incomplete_details":{"reason":"max_output_tokens"},`
	otherMembers = `"background":false,"error":null,"instructions":null,"metadata":{},` +
		`"parallel_tool_calls":true,"tool_choice":"auto","tools":[],`
	usageMembers = `"output_tokens_details":{"reasoning_tokens":0},`
	partMembers  = `"content_index":0,`
	textMembers  = `"logprobs":[],`
)

// Event implements relay.Rewriter.
func (r *responseEvents) Event(out, event []byte) []byte {
	line, _, _ := bytes.Cut(event, []byte("\n"))
	kind, named := bytes.CutPrefix(line, []byte("event: response."))
	head, data, whole := bytes.Cut(event, []byte("\ndata: {"))
	if !named || !whole { // a comment
		return append(out, event...)
	}
	begin := len(out)
	out = append(append(append(out, head...), "\ndata: {"...), `"sequence_number":`...)
	out = append(strconv.AppendInt(out, int64(r.sequence), 10), ',')
	r.sequence++
	if bytes.HasSuffix(kind, []byte(".delta")) {
		r.deltas++
	}
	switch string(kind) {
	case "created", "in_progress":
		return insert(out, data, `"response":{`, responseMembers+`"output":[],`+r.opening(data))
	case "completed", "incomplete", "failed":
		before, usage, found := bytes.Cut(data, []byte(`"usage":{`))
		out = insert(out, before, `"response":{`, responseMembers)
		if found {
			out = append(append(append(out, `"usage":{`...), usageMembers...), usage...)
		}
		if string(kind) == "completed" && r.cut(usage, found) {
			r.cutOff = true
			return incomplete(out, begin)
		}
		return out
	case "output_item.added", "output_item.done":
		out = r.place(out, member(data, `"id":"`))
	case "output_text.delta", "output_text.done":
		out = append(append(r.place(out, member(data, `"item_id":"`)), partMembers...), textMembers...)
	case "content_part.added":
		out = append(r.place(out, member(data, `"item_id":"`)), partMembers...)
		if !bytes.Contains(data, []byte(`"annotations":`)) {
			return insert(out, data, `"part":{"type":"output_text",`, `"annotations":[],`+textMembers)
		}
	case "content_part.done", "reasoning_text.delta", "reasoning_text.done":
		out = append(r.place(out, member(data, `"item_id":"`)), partMembers...)
	default:
		out = r.place(out, member(data, `"item_id":"`))
	}
	return append(out, data...)
}

// cut reports whether the answer was cut off. The end of a long event, which has the usage, has not arrived yet; then the events
// count.
func (r *responseEvents) cut(usage []byte, found bool) bool {
	if found {
		return r.bounds.cut(number(usage, `"input_tokens":`), number(usage, `"output_tokens":`))
	}
	return r.bounds.answer > 0 && r.deltas >= r.bounds.answer
}

// incomplete says of the answer in out, from begin on, that it was cut off. A text of the model has no plain quotes.
func incomplete(out []byte, begin int) []byte {
	answer := bytes.Clone(out[begin:])
	for _, change := range [][2]string{
		{"event: response.completed\n", "event: response.incomplete\n"}, {`"type":"response.completed"`, `"type":"response.incomplete"`},
		{`"status":"completed"`, `"status":"incomplete"`}, {wholeMember, cutMember},
	} {
		answer = bytes.ReplaceAll(answer, []byte(change[0]), []byte(change[1]))
	}
	return append(out[:begin], answer...)
}

// number returns the whole number behind the first name; 0 if there is none.
func number(data []byte, name string) int {
	_, after, _ := bytes.Cut(data, []byte(name))
	end := 0
	for end < len(after) && '0' <= after[end] && after[end] <= '9' {
		end++
	}
	n, err := strconv.Atoi(string(after[:end]))
	if err != nil {
		return 0
	}
	return n
}

// Rest implements relay.Rewriter. A status that stands across two parts stays as the runtime wrote it.
func (r *responseEvents) Rest(out, part []byte) []byte {
	begin := len(out)
	out = append(out, part...)
	if r.cutOff {
		return incomplete(out, begin)
	}
	return out
}

// opening has the members that say when an answer began and which model makes it. The runtime writes them only at the end.
func (r *responseEvents) opening(data []byte) string {
	members := ""
	if !bytes.Contains(data, []byte(`"created_at":`)) {
		members += `"created_at":` + strconv.FormatInt(r.began, 10) + `,`
	}
	if !bytes.Contains(data, []byte(`"model":`)) {
		members += `"model":` + string(encoded(r.model)) + `,`
	}
	return members
}

// Answer implements relay.Rewriter.
func (r *responseEvents) Answer(whole []byte) []byte {
	const usage = `"usage":{`
	at := bytes.LastIndex(whole, []byte(usage)) // it is near the end
	if at < 0 || len(whole) == 0 || whole[0] != '{' {
		return insert(nil, whole, "{", responseMembers)
	}
	at += len(usage)
	out := make([]byte, 0, len(whole)+len(responseMembers)+len(usageMembers))
	out = append(append(out, '{'), responseMembers...)
	out = append(append(out, whole[1:at]...), usageMembers...)
	out = append(out, whole[at:]...)
	if r.cut(whole[at:], true) {
		return incomplete(out, 0)
	}
	return out
}

const (
	// maxItems bounds the items of one answer whose places are kept. The runtime makes one for reasoning, one for text and
	// one for each call.
	maxItems = 256
	// maxItemID bounds the id of an item, in bytes. The runtime's have about 40.
	maxItemID = 256
)

// place writes the place of an item in the answer. A new item comes after the others. What a runtime sends beyond the
// bounds has no place: it must not fill the daemon's memory (T7).
func (r *responseEvents) place(out, id []byte) []byte {
	if len(id) == 0 || len(id) > maxItemID {
		return out
	}
	i := slices.IndexFunc(r.items, func(known []byte) bool { return bytes.Equal(known, id) })
	if i < 0 && len(r.items) == maxItems {
		return out
	}
	if i < 0 {
		i = len(r.items)
		r.items = append(r.items, bytes.Clone(id))
	}
	return append(strconv.AppendInt(append(out, `"output_index":`...), int64(i), 10), ',')
}

// anthropicEvents completes an answer in the Anthropic format: the empty input of a call that begins, and that a text of the
// client's ended the answer. The runtime names the text, and says that the model ended it.
type anthropicEvents struct{}

func newAnthropicEvents() relay.Rewriter { return anthropicEvents{} }

// Event implements relay.Rewriter.
func (anthropicEvents) Event(out, event []byte) []byte {
	if bytes.HasPrefix(event, []byte("event: message_delta\n")) {
		return append(out, stopped(event)...)
	}
	if !bytes.HasPrefix(event, []byte("event: content_block_start\n")) {
		return append(out, event...)
	}
	return insert(out, event, `"content_block":{"type":"tool_use",`, `"input":{},`)
}

// Rest implements relay.Rewriter.
func (anthropicEvents) Rest(out, part []byte) []byte { return append(out, part...) }

// Answer implements relay.Rewriter.
func (anthropicEvents) Answer(whole []byte) []byte { return stopped(whole) }

// stopped returns an answer, or the event with its end, with the reason for which it ended.
func stopped(answer []byte) []byte {
	if !bytes.Contains(answer, []byte(`"stop_sequence":"`)) {
		return answer
	}
	return bytes.Replace(answer, []byte(`"stop_reason":"end_turn"`), []byte(`"stop_reason":"stop_sequence"`), 1)
}

// insert appends text to out with members behind the first opening, if there is one.
func insert(out, text []byte, opening, members string) []byte {
	before, after, found := bytes.Cut(text, []byte(opening))
	out = append(out, before...)
	if found {
		out = append(append(append(out, opening...), members...), after...)
	}
	return out
}

// member returns the text behind the first name, up to its quote.
func member(data []byte, name string) []byte {
	_, after, found := bytes.Cut(data, []byte(name))
	if !found {
		return nil
	}
	value, _, _ := bytes.Cut(after, []byte(`"`))
	return value
}
