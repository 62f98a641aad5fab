package openai

import (
	"strconv"
	"strings"

	"companion/messages"
)

// Error is why a body is refused. Its text comes from a fixed table (L10): it may hold the name and the place
// of a field, a limit, and the served model's name, and never a value of the client.
type Error struct {
	Reason messages.Reason // ReasonBadRequest or ReasonModelNotFound
	Param  string          // the path of the field, such as messages[0].content; empty for the whole body
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
	faultNoModel
	faultTwice
	faultNoFit
	faultTooLarge

	// Of schemas.
	faultUnsupported
	faultPattern
	faultReference
	faultNowhere
	faultCircle
	faultTooManyParts
	faultTooManyItems
	faultTooManyAlternatives
	faultTooCostly
	faultAmbiguous
	faultRecursion
)

// faultTexts say what is wrong and what to do. @ stands for the field and where it is, % for the limit.
var faultTexts = [...]string{
	faultNotJSON:    "@ is not one JSON value in UTF-8.",
	faultDuplicate:  "@ has the same member twice. Remove one.",
	faultTooDeep:    "@ is nested deeper than % levels.",
	faultUnknown:    "Unknown field @. Remove it or correct its name, or set `front_door.unknown_fields` to \"drop\".",
	faultRefused:    "@ is not allowed: %.",
	faultMissing:    "@ is missing. Add it.",
	faultWrongType:  "@ must be %.",
	faultOutOfRange: "@ must be %.",
	faultNotOneOf:   "@ must be one of: %.",
	faultTooMany:    "@ has more than % entries.",
	faultTooLong:    "@ is longer than % bytes.",
	faultEmpty:      "@ must not be empty.",
	faultNeeds:      "@ needs %. Add it, or remove this field.",
	faultConflict:   "@ cannot be used together with %. Remove one of them.",
	faultNotData:    "@ must be a data: URL; nothing is fetched.",
	faultTwice:      "@ is there twice. Remove one.",
	faultNoFit:      "@ does not fit the context: it has %. Send less, such as a shorter history.",
	faultTooLarge:   "@ takes the runtime too long: it has %. Send less, such as a shorter history.",
	faultNoModel:    "This model is not served here. The served model is %.",

	faultUnsupported:         "@: the runtime does not support %.",
	faultPattern:             "@: the runtime does not support %.",
	faultReference:           "@ must begin with #/ and lead to a schema inside the same schema.",
	faultNowhere:             "@ has a reference that leads to no schema. A reference can lead to a member of $defs, definitions or properties, or to another schema by its place.",
	faultCircle:              "@ has references that lead in a circle without a property or an item between them.",
	faultTooManyParts:        "@: all schemas of a request may have % schemas and enum values together.",
	faultTooManyItems:        "@: all patterns of a request may have % characters, classes and dots together.",
	faultTooManyAlternatives: "@ has a place at which more than % alternatives may come next. Use fewer enum values, optional properties, alternatives or ambiguous repetitions.",
	faultTooCostly:           "@ would take the runtime too long to prepare. Use fewer or shorter names, values, repetitions and references.",
	faultAmbiguous:           "@ has too many alternatives that can read the same text. Make them differ, for instance by a first required property with a const.",
	faultRecursion:           "@ has a schema that contains itself inside alternatives that cannot be told apart. Give each a first required property with a const.",
}

func fault(kind faultKind, limit string) *Error {
	reason := messages.ReasonBadRequest
	if kind == faultNoModel {
		reason = messages.ReasonModelNotFound
	}
	return &Error{Reason: reason, fault: kind, limit: limit}
}

// at puts the name of a field in front of the path.
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

// named is at for a name that the client chose. A nil error stays nil.
func (e *Error) named(name string) *Error {
	if e == nil {
		return nil
	}
	return e.at(shown(name))
}

func (e *Error) index(i int) *Error { return e.at("[" + strconv.Itoa(i) + "]") }

func (e *Error) Error() string {
	return strings.NewReplacer("@", e.field(), "%", e.limit).Replace(faultTexts[e.fault])
}

// field names the field as a text does: "`content` in messages[0]".
func (e *Error) field() string {
	if e.Param == "" {
		return "The body"
	}
	if i := strings.LastIndexByte(e.Param, '.'); i > 0 && i+1 < len(e.Param) {
		return "`" + e.Param[i+1:] + "` in " + e.Param[:i]
	}
	return "`" + e.Param + "`"
}

// maxShown is how many bytes of a name an error repeats.
const maxShown = 64

// shown is a name of the client as an error may repeat it: short and printable.
func shown[B []byte | string](name B) string {
	if len(name) > maxShown {
		name = name[:maxShown]
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, string(name))
}
