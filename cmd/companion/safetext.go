package main

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/mattn/go-runewidth"
)

// steers reports whether r can change more of a terminal than its own cell: C0 and C1 controls, DEL, and the characters
// that reorder text (UAX #9) or end a line (U+2028, U+2029).
func steers(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}

// plain removes what could steer a terminal. Line ends and tabs stay.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if steers(r) && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, text)
}

// oneLine is plain for text that must stay in its line, such as a name of a file: line ends and tabs become spaces.
func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(plain(text), func(r rune) bool { return r == '\n' || r == '\t' }), " ")
}

// wrapped breaks a text between words, so that it fits a terminal of this many columns where each line begins after indent
// of them. width 0: no terminal, no break.
func wrapped(text string, width, indent int) string {
	if width <= indent+20 {
		return text
	}
	var b strings.Builder
	used := 0
	for i, word := range strings.Fields(text) {
		size := runewidth.StringWidth(word)
		switch {
		case i == 0:
		case used+1+size > width-indent:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			used = 0
		default:
			b.WriteByte(' ')
			used++
		}
		b.WriteString(word)
		used += size
	}
	return b.String()
}

// safeJSON escapes, in encoded JSON, what could steer a terminal and what encoding/json writes as it is: DEL, C1
// controls and bidirectional overrides. They occur in strings only, so that a reader gets the same values.
func safeJSON(encoded []byte) string {
	var b strings.Builder
	for _, r := range string(encoded) {
		if r != '\n' && steers(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
