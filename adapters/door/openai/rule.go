package openai

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// rule reads one value, checks it, and writes it. describe returns the same rule as text for docs/api.md.
type rule interface {
	read(*reader) *Error
	describe() string
}

type action uint8

const (
	accept action = iota
	drop          // read, count and leave out
	refuse        // unless it is null: client libraries send back all fields of an answer, also those that are not set
	forbid        // even if it is null
)

// field is one row of the table.
type field struct {
	name     string
	rule     rule // nil unless accepted
	action   action
	required bool
	note     func(*seen) // called when the field is there, not null and not left out
	doc      string      // what it is for; of a field that is dropped or refused: why (L12)
}

// object is a JSON object with known fields. before runs before its fields are read. after runs after that: it
// checks what holds between them, and may write more fields.
type object struct {
	fields        []field
	byName        map[string]int
	before        func(*seen)
	after         func(*reader) *Error
	requiredCount int
}

func newObject(fields ...field) *object {
	o := &object{fields: fields, byName: make(map[string]int, len(fields))}
	for i, f := range fields {
		o.byName[f.name] = i
		if f.required {
			o.requiredCount++
		}
	}
	return o
}

func (*object) describe() string { return "an object" }

func (o *object) read(r *reader) *Error {
	if err := r.open('{', "an object"); err != nil {
		return err
	}
	if o.before != nil {
		o.before(&r.seen)
	}
	there := make([]int, 0, 4) // rows of required fields that have a value
	for n := 0; r.dec.PeekKind() != '}'; n++ {
		if n >= maxMembers {
			return fault(faultTooMany, strconv.Itoa(maxMembers))
		}
		i, present, err := o.field(r)
		if err != nil {
			return err
		}
		if present && o.fields[i].required {
			there = append(there, i)
		}
	}
	if len(there) < o.requiredCount {
		if !r.uniqueNames() {
			return fault(faultDuplicate, "")
		}
		return o.missing(there)
	}
	if o.after != nil {
		if err := o.after(r); err != nil {
			return err
		}
	}
	return r.close()
}

// field reads one member. It returns its row in the table and whether it has a value.
func (o *object) field(r *reader) (row int, present bool, bad *Error) {
	name, bad := r.memberName()
	if bad != nil {
		return 0, false, bad
	}
	row, known := o.byName[string(name)]
	if !known {
		return 0, false, r.unknown(name)
	}
	f := &o.fields[row]
	null := r.dec.PeekKind() == 'n'
	switch {
	case f.action == forbid, f.action == refuse && !null:
		return 0, false, fault(faultRefused, f.doc).at(f.name)
	case f.action != accept || null:
		if err := r.skip(); err != nil {
			return 0, false, err.at(f.name)
		}
		if !null {
			r.drop(f.name)
		}
		return row, false, nil
	}
	mark := len(r.out)
	_, hidden := f.rule.(hiddenRule)
	switch as := f.rule.(type) {
	case hiddenRule:
	case renamed:
		r.name(as.name)
	default:
		r.name(f.name)
	}
	if err := f.rule.read(r); err != nil {
		return 0, false, err.at(f.name)
	}
	omitted := r.omitted()
	if hidden || omitted {
		r.out = r.out[:mark]
	}
	if f.note != nil && !omitted {
		f.note(&r.seen)
	}
	return row, !omitted, nil
}

// unknown refuses or drops a member that the table does not have.
func (r *reader) unknown(name []byte) *Error {
	if !r.serving.DropUnknown {
		return fault(faultUnknown, "").at(shown(name))
	}
	var kept [maxShown]byte // the name is overwritten when the value is read
	begin := kept[:copy(kept[:], name)]
	if err := r.skip(); err != nil {
		return err.at(shown(begin))
	}
	r.drop(UnknownField)
	return nil
}

// UnknownField stands in Result.Dropped for all fields that the table does not have.
const UnknownField = "unknown"

// drop notes that a field with a value is left out. There are no more names than the tables have.
func (r *reader) drop(name string) {
	if !slices.Contains(r.dropped, name) {
		r.dropped = append(r.dropped, name)
	}
}

// omitted reports whether the rule that has just read a value wants it left out, and resets that wish.
func (r *reader) omitted() bool {
	omit := r.omit
	r.omit = false
	return omit
}

// missing is the error for the first required field that is not there.
func (o *object) missing(there []int) *Error {
	for i := range o.fields {
		if o.fields[i].required && !slices.Contains(there, i) {
			return fault(faultMissing, "").at(o.fields[i].name)
		}
	}
	return fault(faultMissing, "")
}

// hiddenRule marks a rule that keeps its value in the reader, for finish to write.
type hiddenRule struct{ rule }

// text is a string of at most max bytes; 0 means as long as the body may be.
type text struct {
	min, max int
	only     func([]byte) bool
	what     string // describes only
	prompt   bool   // the model reads it: it counts for checkFit
	past     bool   // reasoning of an earlier answer: it counts for checkFit as well
}

func (s text) describe() string {
	switch {
	case s.what != "":
		return s.what
	case s.max > 0:
		return fmt.Sprintf("a string of at most %d bytes", s.max)
	}
	return "a string"
}

func (s text) read(r *reader) *Error {
	b, err := r.text()
	switch {
	case err != nil:
		return err
	case len(b) < s.min:
		return fault(faultEmpty, "")
	case s.max > 0 && len(b) > s.max:
		return fault(faultTooLong, strconv.Itoa(s.max))
	case s.only != nil && !s.only(b):
		return fault(faultWrongType, s.what)
	}
	if s.prompt {
		r.seen.textBytes += len(b)
	}
	if s.past {
		r.seen.reasoningBytes += len(b)
	}
	r.out = appendQuoted(r.out, b)
	return nil
}

// choice is one of several words.
type choice struct {
	words []string
	note  func(*seen, string)
}

func oneOf(words ...string) choice { return choice{words: words} }

func (c choice) describe() string { return "one of `" + strings.Join(c.words, "`, `") + "`" }

func (c choice) read(r *reader) *Error {
	b, err := r.text()
	if err != nil {
		return err
	}
	for _, w := range c.words {
		if string(b) == w {
			r.out = appendQuoted(r.out, w)
			if c.note != nil {
				c.note(&r.seen, w)
			}
			return nil
		}
	}
	return fault(faultNotOneOf, strings.Join(c.words, ", "))
}

// list is an array.
type list struct {
	of       rule
	min, max int
}

func (l list) describe() string {
	if l.max == 0 {
		return "an array of: " + l.of.describe()
	}
	return fmt.Sprintf("an array of at most %d: %s", l.max, l.of.describe())
}

func (l list) read(r *reader) *Error {
	if err := r.open('[', "an array"); err != nil {
		return err
	}
	return l.rest(r)
}

// rest reads the elements and the closing bracket.
func (l list) rest(r *reader) *Error {
	n := 0
	for ; r.dec.PeekKind() != ']'; n++ {
		if l.max > 0 && n >= l.max {
			return fault(faultTooMany, strconv.Itoa(l.max))
		}
		mark := len(r.out)
		r.comma()
		if err := l.of.read(r); err != nil {
			return err.index(n)
		}
		if r.omitted() {
			r.out = r.out[:mark]
		}
		if err := r.fits(); err != nil {
			return err
		}
	}
	if n < l.min {
		return fault(faultEmpty, "")
	}
	return r.close()
}

// either chooses a rule by the kind of the value.
type either map[jsontext.Kind]rule

func (e either) describe() string {
	var all []string
	for _, k := range []jsontext.Kind{'"', '0', '[', '{'} {
		if sub, ok := e[k]; ok {
			all = append(all, sub.describe())
		}
	}
	return strings.Join(all, ", or ")
}

func (e either) read(r *reader) *Error {
	sub, ok := e[r.dec.PeekKind()]
	if !ok {
		if err := r.syntax(); err != nil {
			return err
		}
		return fault(faultWrongType, e.describe())
	}
	return sub.read(r)
}
