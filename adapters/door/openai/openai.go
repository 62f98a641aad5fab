// Package openai decodes the JSON of an inference request, checks every field against the table of its route, and
// encodes the result again (L6a). The client's own bytes never reach the runtime's parser. Each row of a table
// decides (L12): the field is passed, with a range; dropped, with the reason why that is harmless; or refused,
// with a reason. A field that is not in the table is refused, unless the user has configured otherwise.
// docs/api.md is generated from the tables:
//
//   - table.go: OpenAI chat, completions and embeddings, and the sampling fields that llama.cpp adds;
//   - infill.go: filling in the middle, in the form of llama.cpp and as `suffix` of a completion;
//   - responses.go: OpenAI responses;
//   - anthropic.go: Anthropic messages;
//   - switches.go: fields of other families that mean one of llama.cpp.
//
// A null field counts as absent, except for the fields that control the runtime itself.
//
// Schemas and patterns have files of their own: schema.go and pattern.go define what llama.cpp reads with the
// right meaning; schemacost.go and patterncost.go bound what it pays for that.
//
// Checking a body allocates at most 8 times its size plus 1 MiB (TestMemory).
package openai

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"companion/messages"
)

// Route is an inference route that takes a body (L5).
type Route uint8

// The routes.
const (
	Chat Route = iota
	Completions
	Embeddings
	Infill
	Responses
	Messages
	CountTokens
)

// Result is what the front door must know of a checked request.
type Result struct {
	Stream        bool
	Images, Audio bool     // a message has one
	Answers       int      // that the runtime makes in parallel, at least 1
	ToolForced    bool     // the answer must be a call of a tool
	Probabilities bool     // the answer must have those of its tokens
	Dropped       []string // the fields that were left out, each once
}

// Serving is what requests are checked against.
type Serving struct {
	Model messages.Model // bounds token counts, which are never left unlimited
	Slots int            // how many answers the runtime makes at once
	// DropUnknown drops the fields that no table has, which are refused otherwise.
	DropUnknown bool
}

const (
	maxDepth   = 32 // of nested arrays and objects
	maxTools   = 128
	maxMembers = 4096 // of one object of free JSON, of whose names a hash is kept until it ends

	// keptBytes is the largest body whose reader goes back to the pool. A reader refers to the last body.
	keptBytes = 64 << 10

	invalid jsontext.Kind = 0 // of a token that is not JSON
)

// Check checks the body raw of a request to route, and appends to out the body that may go to the runtime. The
// front door calls Check after it has authorised the request.
func Check(route Route, raw []byte, serving Serving, out []byte) ([]byte, Result, *Error) {
	r := readers.Get().(*reader)
	defer func() {
		if len(raw) <= keptBytes {
			readers.Put(r)
		}
	}()
	r.source = *bytes.NewBuffer(raw)
	r.dec.Reset(&r.source, jsontext.AllowDuplicateNames(true)) // the reader looks for them itself
	r.names, r.objects = r.names[:0], r.objects[:0]
	r.out, r.route, r.serving, r.seen, r.omit = out, route, serving, seen{breakers: noBound}, false
	r.tools, r.toolNames, r.dropped = r.tools[:0], r.toolNames[:0], r.dropped[:0]
	r.changes = toolChanges{}
	r.schemas.reset()

	if r.dec.PeekKind() != '{' {
		if err := r.syntax(); err != nil {
			return nil, Result{}, err
		}
		return nil, Result{}, fault(faultWrongType, "an object")
	}
	if err := r.top(forms[route].fields); err != nil {
		return nil, Result{}, err
	}
	if _, err := r.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, Result{}, fault(faultNotJSON, "")
	}
	if err := r.finish(); err != nil {
		return nil, Result{}, err
	}
	return r.out, Result{
		Stream: r.seen.stream, Images: r.seen.images, Audio: r.seen.audio, Dropped: slices.Clone(r.dropped),
		Answers:       r.seen.sequences(),
		Probabilities: r.seen.logprobs,
		ToolForced:    r.seen.toolChoice == "required" || r.seen.toolNamed != "",
	}, nil
}

// reader reads one request and writes the body for the runtime.
type reader struct {
	source  bytes.Buffer
	dec     *jsontext.Decoder
	out     []byte // the body for the runtime, so far
	scratch []byte
	names   []uint64 // hashes of the names in all open objects
	objects []int    // where those of each begin
	route   Route
	serving Serving
	seen    seen
	dropped []string // the fields that were left out, each once
	omit    bool     // the rule that has just read a value wants it left out

	ahead       *jsontext.Decoder // reads ahead of dec for the type of an object (union)
	aheadSource bytes.Buffer

	innerDec     *jsontext.Decoder // reads the JSON in a string (arguments)
	innerSource  bytes.Buffer
	innerScratch []byte
	innerOut     []byte

	tools     [][]byte // encoded; finishTools writes those that tool_choice allows
	toolNames []string
	changes   toolChanges // that messages make to tools
	schemas   schemas
}

// seen is what the checks between fields need.
type seen struct {
	stream, streamOptions bool
	logprobs, topLogprobs bool
	seeded, cachePrompt   bool // both fields given: the client's own cache_prompt counts
	answers               int  // field n; 0 if it is absent
	prompts               int  // of an array of several; 0 otherwise
	dry                   bool
	pieces, textBytes     int    // of the conversation (checkFit); of several prompts, the longest
	reasoningBytes        int    // of earlier answers (checkFit)
	breakers              int    // of dry; noBound for those of the runtime
	inFormat              bool   // in response_format, not in tools
	maxTokens             int64  // noBound for no limit of the client's own
	maxTokensBy           string // the field that set it
	images, audio         bool
	promptAt              [2]int // where the one text of `prompt` is in out; 0, 0 if it is anything else
	suffix                []byte // of the completion, encoded; nil if there is none
	textFormat            []byte // what finish writes as response_format
	toolChoice            string // "none", "auto", "required" or ""
	toolNamed             string // the one function that tool_choice names
	thinking              wish   // "true" or "false"
	effort, penalty       wish
	thought               wish // longest
	noEffort              bool // the effort is "none"
	message               struct {
		role                  string
		content, empty, calls bool
	}
	format struct {
		kind   string
		schema bool
		empty  bool // the schema is {}
	}
}

var readers = sync.Pool{New: func() any {
	r := new(reader)
	r.dec, r.ahead, r.innerDec = jsontext.NewDecoder(&r.source), jsontext.NewDecoder(&r.aheadSource), jsontext.NewDecoder(&r.innerSource)
	return r
}}

// top reads the request object.
func (r *reader) top(fields *object) *Error {
	if err := fields.read(r); err != nil {
		return err
	}
	r.out = r.out[:len(r.out)-1] // finish adds fields and closes it
	return nil
}

// comma writes a comma, unless an array or object begins here.
func (r *reader) comma() {
	if last := r.out[len(r.out)-1]; last != '[' && last != '{' {
		r.out = append(r.out, ',')
	}
}

func (r *reader) name(name string) {
	r.comma()
	r.out = appendQuoted(r.out, name)
	r.out = append(r.out, ':')
}

// syntax returns an error if the next token is not JSON.
func (r *reader) syntax() *Error {
	if k := r.dec.PeekKind(); k != invalid {
		return nil
	}
	return notJSON()
}

func notJSON() *Error { return fault(faultNotJSON, "") }

// text reads a string. The result is valid until the next read.
func (r *reader) text() ([]byte, *Error) {
	if err := r.kind('"', "a string"); err != nil {
		return nil, err
	}
	raw, err := r.dec.ReadValue()
	if err != nil {
		return nil, notJSON()
	}
	return r.unquote(raw)
}

// memberName reads the name of an object's member. The result is valid until the next read. It looks at the
// kind first, because jsontext reads a whole value before it reports that it cannot be a name.
func (r *reader) memberName() ([]byte, *Error) {
	if k := r.dec.PeekKind(); k != '"' && k != invalid {
		return nil, fault(faultNotJSON, "")
	}
	raw, err := r.dec.ReadValue()
	if err != nil {
		return nil, notJSON()
	}
	name, bad := r.unquote(raw)
	if bad == nil {
		r.names = append(r.names, hashOf(name))
	}
	return name, bad
}

// uniqueNames reports whether all names of the object that ends here differ.
func (r *reader) uniqueNames() bool {
	last := len(r.objects) - 1
	names := r.names[r.objects[last]:]
	r.names, r.objects = r.names[:r.objects[last]], r.objects[:last]
	slices.Sort(names)
	for i := 1; i < len(names); i++ {
		if names[i] == names[i-1] {
			return false
		}
	}
	return true
}

func (r *reader) unquote(raw []byte) ([]byte, *Error) {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1], nil
	}
	var err error
	if r.scratch, err = jsontext.AppendUnquote(r.scratch[:0], raw); err != nil {
		return nil, notJSON()
	}
	return r.scratch, nil
}

// kind checks that the next value is of kind k.
func (r *reader) kind(k jsontext.Kind, want string) *Error {
	got := r.dec.PeekKind()
	if got == k {
		return nil
	}
	if got == invalid {
		return r.syntax()
	}
	return fault(faultWrongType, want)
}

// maxNumeral bounds the text of a number. The exact decimal form of a float64 has at most 767 digits.
const maxNumeral = 1024 // bytes

// numeral reads a number as text. The result is valid until the next read.
func (r *reader) numeral(want string) ([]byte, *Error) {
	if err := r.kind('0', want); err != nil {
		return nil, err
	}
	raw, err := r.dec.ReadValue()
	if err != nil {
		return nil, notJSON()
	}
	if len(raw) > maxNumeral {
		return nil, fault(faultTooLong, strconv.Itoa(maxNumeral))
	}
	return raw, nil
}

// number reads a number that fits a float64.
func (r *reader) number(want string) (float64, *Error) {
	numeral, err := r.numeral(want)
	if err != nil {
		return 0, err
	}
	return asFloat(numeral, want)
}

func asFloat(numeral []byte, want string) (float64, *Error) {
	x, err := strconv.ParseFloat(string(numeral), 64)
	if err != nil {
		return 0, fault(faultWrongType, want)
	}
	return x, nil
}

// open reads the bracket that begins an array or an object.
func (r *reader) open(k jsontext.Kind, want string) *Error {
	if err := r.kind(k, want); err != nil {
		return err
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return notJSON()
	}
	if r.dec.StackDepth() > maxDepth {
		return fault(faultTooDeep, strconv.Itoa(maxDepth))
	}
	if k == '{' {
		r.objects = append(r.objects, len(r.names))
	}
	r.out = append(r.out, byte(k))
	return nil
}

// close reads the bracket that ends an array or an object, and checks the names of an object.
func (r *reader) close() *Error {
	t, err := r.dec.ReadToken()
	if err != nil {
		return notJSON()
	}
	if t.Kind() == '}' && !r.uniqueNames() {
		return fault(faultDuplicate, "")
	}
	r.out = append(r.out, byte(t.Kind()))
	return nil
}

// skip reads any value and writes nothing.
func (r *reader) skip() *Error {
	mark := len(r.out)
	err := (&anything{}).read(r)
	r.out = r.out[:mark]
	return err
}

func appendQuoted[B []byte | string](out []byte, s B) []byte {
	out, err := jsontext.AppendQuote(out, s)
	if err != nil {
		panic("a decoded string cannot be encoded") // decoder and encoder check UTF-8 in the same way
	}
	return out
}
