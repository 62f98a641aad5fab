package openai

import (
	"strconv"
	"strings"

	"companion/messages"
)

// Error says what is wrong with a body. Its text comes from a fixed table whose variables are a
// field's name, a limit and the served model's name (L10); it never repeats a value.
type Error struct {
	Reason messages.Reason // ReasonBadRequest or ReasonModelNotFound
	Param  string          // the field, such as messages[0].content
	fault  faultKind
	limit  string
}

type faultKind uint8

const (
	faultNotJSON faultKind = iota
	faultDuplicate
	faultTooDeep
	faultUnknown
	faultRefused
	faultMissing
	faultWrongType
	faultOutOfRange
	faultNotOneOf
	faultTooMany
	faultTooLong
	faultEmpty
	faultNeeds
	faultConflict
	faultNotData
	faultReference
	faultCircle
	faultTooWide
	faultNoModel
)

var faultTexts = [...]string{
	faultNotJSON:    "The body is not one JSON value in UTF-8.",
	faultDuplicate:  "A field appears twice.",
	faultTooDeep:    "The body is nested deeper than % levels.",
	faultUnknown:    "This field is not known here.",
	faultRefused:    "This field is not allowed here.",
	faultMissing:    "This field is required.",
	faultWrongType:  "This field must be %.",
	faultOutOfRange: "This field must be %.",
	faultNotOneOf:   "This field must be one of: %.",
	faultTooMany:    "This field has more than % entries.",
	faultTooLong:    "This field is longer than % bytes.",
	faultEmpty:      "This field must not be empty.",
	faultNeeds:      "This field needs %.",
	faultConflict:   "This field cannot be used together with %.",
	faultNotData:    "This URL must be a data: URL.",
	faultReference:  "A reference in a schema must begin with #.",
	faultCircle:     "References in a schema lead in a circle.",
	faultTooWide:    "The schemas of one request have more than % properties, enum values, alternatives and references.",
	faultNoModel:    "This model is not served here; the served model is %.",
}

func fault(kind faultKind, limit string) *Error {
	reason := messages.ReasonBadRequest
	if kind == faultNoModel {
		reason = messages.ReasonModelNotFound
	}
	return &Error{Reason: reason, fault: kind, limit: limit}
}

// at puts the field's name in front of the path.
func (e *Error) at(name string) *Error {
	switch {
	case e.Param == "":
		e.Param = name
	case e.Param[0] == '[':
		e.Param = name + e.Param
	default:
		e.Param = name + "." + e.Param
	}
	return e
}

// named is at for a name that the client made up; a nil error stays nil.
func (e *Error) named(name string) *Error {
	if e == nil {
		return nil
	}
	return e.at(shown(name))
}

func (e *Error) index(i int) *Error { return e.at("[" + strconv.Itoa(i) + "]") }

func (e *Error) Error() string {
	return strings.Replace(faultTexts[e.fault], "%", e.limit, 1)
}

// shown is an unknown field's name as an error may repeat it: short and printable.
func shown[B []byte | string](name B) string {
	const longest = 64
	if len(name) > longest {
		name = name[:longest]
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, string(name))
}
