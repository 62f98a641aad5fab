package enrich

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// bracketed matches what a chat template may use as a control token in square brackets: [INST], [/INST],
// [SYSTEM_PROMPT], [TOOL_CALLS], [gMASK], [|user|], [@BOS@]. Control tokens in angle brackets need no pattern:
// every < and > is escaped.
var bracketed = regexp.MustCompile(`\[[^\[\]\s]{1,48}\]`)

// quote encodes v as JSON that contains no control token of a chat template. llama-server finds control tokens in the
// text of a message, so they must not occur in it: a JSON escape such as \u003c is ordinary text to the tokenizer,
// and the same string to a JSON parser. Control characters, DEL, C1 and bidirectional characters are escaped too.
// tokens are control tokens of the served model's own vocabulary, where they are known.
func quote(v any, tokens []string) (string, error) {
	encoded, err := json.Marshal(v) // escapes <, >, &, U+2028 and control characters below U+0020
	if err != nil {
		return "", fmt.Errorf("quoting the note: %w", err)
	}
	text := bracketed.ReplaceAllStringFunc(string(encoded), func(token string) string {
		return `\u005b` + token[1:len(token)-1] + `\u005d`
	})
	for _, token := range tokens {
		// In encoded JSON, every character but these is inside a string, where an escape means the same.
		at := strings.IndexFunc(token, func(r rune) bool { return !strings.ContainsRune(`{}":,\`, r) })
		if at < 0 || utf8.RuneCountInString(token) < 2 {
			continue
		}
		first, size := utf8.DecodeRuneInString(token[at:])
		text = strings.ReplaceAll(text, token, token[:at]+escaped(first)+token[at+size:])
	}
	return escapeHidden(text), nil
}

// escapeHidden replaces characters that a terminal or an editor acts on instead of showing: DEL, C1 controls,
// format characters (bidirectional overrides, zero-width and tag characters) and line separators. text is
// encoded JSON, where they occur in strings only, so that a \u escape means the same.
func escapeHidden(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r >= 0x7f && (unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) || !unicode.IsGraphic(r)) {
			b.WriteString(escaped(r))
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// escaped is the JSON escape of a rune.
func escaped(r rune) string {
	if r > 0xffff {
		r -= 0x10000
		return fmt.Sprintf(`\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
	}
	return fmt.Sprintf(`\u%04x`, r)
}

var (
	linkSyntax = regexp.MustCompile(`\]\s*[(\[:]|!\[`)
	wikiLink   = regexp.MustCompile(`\[{2,}`)
	htmlTag    = regexp.MustCompile(`<([A-Za-z/!?])`)
	scheme     = regexp.MustCompile(`(?i)\b(?:www\.|(?:mailto|javascript|xmpp|vbscript|file|blob|tel|sms|magnet|obsidian|view-source):)`)
	dataURI    = regexp.MustCompile(`(?i)\bdata:([a-z]+/|[;,])`)
	address    = regexp.MustCompile(`([\pL\pN._+-])@([\pL\pN])`)
)

// defang makes text from a model safe to render as Markdown or HTML: a link, an image or a tag in it is
// shown as text, so that rendering a result asks no server for anything and carries no text away. It keeps
// every visible character and adds spaces; hidden characters become U+FFFD.
func defang(text string) string {
	text = strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && !unicode.IsGraphic(r) {
			return utf8.RuneError
		}
		return r
	}, text)
	text = linkSyntax.ReplaceAllStringFunc(text, func(found string) string { return found[:1] + " " + found[1:] })
	text = wikiLink.ReplaceAllStringFunc(text, func(found string) string { return strings.TrimSuffix(strings.Repeat("[ ", len(found)), " ") })
	text = htmlTag.ReplaceAllString(text, "< $1")
	text = dataURI.ReplaceAllString(text, "data :$1")
	text = address.ReplaceAllString(text, "$1 @$2")
	text = strings.ReplaceAll(text, "://", " ://")
	return scheme.ReplaceAllStringFunc(text, func(found string) string {
		return found[:len(found)-1] + " " + found[len(found)-1:]
	})
}

// shorten cuts text to at most limit runes, as the schema counts them.
func shorten(text string, limit int) string {
	if utf8.RuneCountInString(text) <= limit {
		return text
	}
	return string([]rune(text)[:limit])
}
