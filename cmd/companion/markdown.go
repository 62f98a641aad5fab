package main

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"
)

const (
	// longestSpan bounds, in bytes, what is held back while the end of an emphasis or of code is looked for.
	longestSpan = 400
	// longestTable bounds, in bytes, a table that is held back until its columns are known.
	longestTable = 32 << 10
	italic       = "\x1b[3m"
	cyan         = "\x1b[36m"
	underline    = "\x1b[4m"
)

// markdown renders the Markdown of an answer for a terminal while it streams: headings, emphasis, code, lists, quotes and
// tables. It holds back only what it cannot decide yet: the beginning of a line, an open span, and a table until its last
// row. What is no Markdown stays as it is, and no visible character is lost. A library such as glamour renders whole
// documents only, and brings a highlighter with it. The text given to it must be plain already.
type markdown struct {
	out   func(string) error
	width int

	line  string // of the present line, and not written yet
	begun bool   // the present line's kind is known, and its beginning is written
	last  rune   // written last on this line; 0: none
	outer string // styles that hold for the whole line
	fence string // that ends the open code block; empty: none
	table []string
	held  int // bytes of table
}

// Write takes the next piece of the answer.
func (m *markdown) Write(text string) error {
	var b strings.Builder
	for text != "" {
		piece, rest, ended := strings.Cut(text, "\n")
		text = rest
		m.line += piece
		b.WriteString(m.advance(ended))
	}
	return m.emit(b.String())
}

// Close writes what was held back.
func (m *markdown) Close() error {
	text := ""
	if m.line != "" || m.begun {
		text = m.advance(true)
		text = strings.TrimSuffix(text, "\n")
	}
	if rows := m.closeTable(); rows != "" {
		text = strings.TrimSuffix(rows, "\n") + text
	}
	return m.emit(text)
}

func (m *markdown) emit(text string) error {
	if text == "" {
		return nil
	}
	return m.out(text)
}

// advance renders what can be decided of the present line; ended: it is whole.
func (m *markdown) advance(ended bool) string {
	var b strings.Builder
	if !m.begun {
		if !ended && !decided(m.line, m.fence) {
			return ""
		}
		if row := m.fence == "" && strings.HasPrefix(strings.TrimLeft(m.line, " "), "|"); row && len(m.line) < longestTable && m.held < longestTable {
			if ended {
				m.table, m.held = append(m.table, m.line), m.held+len(m.line)
				m.line = ""
			}
			return ""
		}
		b.WriteString(m.closeTable())
		b.WriteString(m.begin(ended))
		m.begun = true
	}
	if m.fence == "" {
		rendered, rest, last := inline(m.line, m.outer, m.last, ended)
		b.WriteString(rendered)
		m.line, m.last = rest, last
	} else {
		b.WriteString(m.line)
		m.line = ""
	}
	if ended {
		if m.outer != "" {
			b.WriteString(reset)
		}
		b.WriteByte('\n')
		m.line, m.begun, m.outer, m.last = "", false, "", 0
	}
	return b.String()
}

// decided reports whether the beginning of a line is enough to tell the line's kind: the same as with the whole line.
func decided(line, fence string) bool {
	text := strings.TrimLeft(line, " \t")
	if text == "" {
		return false
	}
	if fence != "" {
		return text[0] != fence[0] // it may become the end of the block
	}
	switch text[0] {
	case '|':
		return len(line) >= longestTable
	case '`', '~':
		return len(text) >= 3 && strings.Trim(text[:3], text[:1]) != ""
	case '-', '*', '_', '+', '#', '>': // a rule, a list, a heading, a quote
		return strings.Trim(text, text[:1]+" \t") != ""
	}
	return true
}

var (
	heading = regexp.MustCompile(`^ {0,3}(#{1,6})[ \t]+`)
	opening = regexp.MustCompile("^[ \\t]*(`{3,}[^`]*|~{3,}.*)$")
	rule    = regexp.MustCompile(`^ {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$`)
	bullet  = regexp.MustCompile(`^([ \t]*)[-*+][ \t]+`)
	quoted  = regexp.MustCompile(`^ {0,3}((?:>[ ]?)+)`)
)

// begin writes the mark of a line's kind, and takes it from the line.
func (m *markdown) begin(ended bool) string {
	if m.fence != "" {
		if text := strings.TrimSpace(m.line); ended && len(text) >= len(m.fence) && strings.Trim(text, m.fence[:1]) == "" {
			m.fence, m.line, m.outer = "", "", dim
			return dim + text
		}
		return ""
	}
	switch {
	case ended && opening.MatchString(m.line):
		text := strings.TrimSpace(m.line)
		m.fence, m.line = text[:len(text)-len(strings.TrimLeft(text, text[:1]))], ""
		return dim + text + reset
	case ended && rule.MatchString(m.line):
		m.line = ""
		return dim + strings.Repeat("─", min(m.width, 40)) + reset
	}
	if at := heading.FindStringSubmatchIndex(m.line); at != nil {
		m.outer = bold
		if at[3]-at[2] == 1 {
			m.outer += underline
		}
		m.line = m.line[at[1]:]
		return m.outer
	}
	if at := quoted.FindStringSubmatchIndex(m.line); at != nil {
		depth := strings.Count(m.line[at[2]:at[3]], ">")
		m.line = m.line[at[1]:]
		return dim + strings.Repeat("│ ", depth) + reset
	}
	if at := bullet.FindStringSubmatchIndex(m.line); at != nil {
		indent := m.line[at[2]:at[3]]
		m.line = m.line[at[1]:]
		return indent + "• "
	}
	return ""
}

// inline renders the spans of a line as far as they are decided, and returns the rest. last is the rune before text.
func inline(text, outer string, last rune, ended bool) (rendered, rest string, end rune) {
	var b strings.Builder
	for text != "" {
		at := strings.IndexAny(text, "\\`*_")
		if at < 0 {
			at = len(text)
		}
		if at > 0 {
			b.WriteString(text[:at])
			last, _ = utf8.DecodeLastRuneInString(text[:at])
			text = text[at:]
			continue
		}
		style, content, size, open := span(text, last, ended)
		switch {
		case open:
			return b.String(), text, last
		case size == 0: // no span: the marks are text
			run := len(text) - len(strings.TrimLeft(text, text[:1]))
			if text[0] == '\\' {
				run = 1
			}
			b.WriteString(text[:run])
			last, text = rune(text[0]), text[run:]
		case style == "":
			b.WriteString(content)
			last, _ = utf8.DecodeLastRuneInString(content)
			text = text[size:]
		default:
			if style != cyan {
				content, _, _ = inline(content, outer+style, 0, true)
			}
			b.WriteString(style + content + reset + outer)
			last, text = rune(text[size-1]), text[size:]
		}
	}
	return b.String(), "", last
}

// span finds the span at the beginning of text: its style, content and size. size 0: there is none. open: its end may come.
func span(text string, last rune, ended bool) (style, content string, size int, open bool) {
	open = !ended && len(text) < longestSpan
	text = text[:min(len(text), longestSpan)]
	if text[0] == '\\' {
		if len(text) == 1 {
			return "", "", 0, open
		}
		if strings.IndexByte("\\`*_#+-.!|>~", text[1]) >= 0 {
			return "", text[1:2], 2, false
		}
		return "", "", 0, false
	}
	run := len(text) - len(strings.TrimLeft(text, text[:1]))
	if run == len(text) {
		return "", "", 0, open
	}
	if text[0] == '`' {
		return codeSpan(text, run, open)
	}
	return emphasis(text, run, last, open)
}

// codeSpan finds the end of code, a run of as many backticks.
func codeSpan(text string, run int, open bool) (style, content string, size int, more bool) {
	mark := text[:run]
	for from := run; ; {
		at := strings.Index(text[from:], mark)
		if at < 0 {
			return "", "", 0, open
		}
		end := from + at + run
		tail := len(text[end:]) - len(strings.TrimLeft(text[end:], "`"))
		switch {
		case tail > 0: // a longer run is no end
			from = end + tail
		case end == len(text) && open:
			return "", "", 0, true // more backticks may come
		default:
			return cyan, text[run : end-run], end, false
		}
	}
}

// emphasis finds the end of an emphasis. It is stricter than CommonMark where letters or digits touch single marks: 2*3*4
// and snake_case_names stay as they are.
func emphasis(text string, run int, last rune, open bool) (style, content string, size int, more bool) {
	mark := text[:run]
	touching := func(r rune) bool { return (run == 1 || mark[0] == '_') && isWord(r) }
	after, _ := utf8.DecodeRuneInString(text[run:])
	if run > 3 || unicode.IsSpace(after) || touching(last) {
		return "", "", 0, false
	}
	for from := run; ; {
		at := strings.Index(text[from:], mark)
		if at < 0 {
			return "", "", 0, open
		}
		start, end := from+at, from+at+run
		tail := len(text[end:]) - len(strings.TrimLeft(text[end:], mark[:1]))
		if end+tail == len(text) && open {
			return "", "", 0, true // the next character decides
		}
		before, _ := utf8.DecodeLastRuneInString(text[:start])
		next, _ := utf8.DecodeRuneInString(text[end:])
		if tail > 0 || unicode.IsSpace(before) || before == '\\' || touching(next) {
			from = end + tail
			continue
		}
		return []string{italic, bold, bold + italic}[run-1], text[run:start], end, false
	}
}

func isWord(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }

var delimiter = regexp.MustCompile(`^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$`)

// closeTable writes the table that was held back: with aligned columns where it is one and fits the terminal, as it came
// otherwise.
func (m *markdown) closeTable() string {
	if len(m.table) == 0 {
		return ""
	}
	rows := m.table
	m.table, m.held = nil, 0
	raw := strings.Join(rows, "\n") + "\n"
	if len(rows) < 2 || !delimiter.MatchString(rows[1]) {
		var b strings.Builder
		for _, row := range rows {
			text, _, _ := inline(row, "", 0, true)
			b.WriteString(text + "\n")
		}
		return b.String()
	}
	cells, widths := columnsOf(append([]string{rows[0]}, rows[2:]...))
	whole := -3
	for _, w := range widths {
		whole += w + 3
	}
	if whole > m.width {
		return raw
	}
	var b strings.Builder
	for i, fields := range cells {
		line := ""
		for j, w := range widths {
			text := ""
			if j < len(fields) {
				text = fields[j]
			}
			pad := strings.Repeat(" ", w-shownWidth(text))
			if i == 0 {
				text = bold + text + reset
			}
			if j > 0 {
				line += " │ "
			}
			line += text + pad
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
		if i == 0 {
			marks := make([]string, len(widths))
			for j, w := range widths {
				marks[j] = strings.Repeat("─", w)
			}
			b.WriteString(dim + strings.Join(marks, "─┼─") + reset + "\n")
		}
	}
	return b.String()
}

// columnsOf renders the cells of rows, and returns how wide each column must be.
func columnsOf(rows []string) (cells [][]string, widths []int) {
	for _, row := range rows {
		fields := splitRow(row)
		for j, field := range fields {
			if j == len(widths) {
				widths = append(widths, 0)
			}
			fields[j], _, _ = inline(field, "", 0, true)
			widths[j] = max(widths[j], shownWidth(fields[j]))
		}
		cells = append(cells, fields)
	}
	return cells, widths
}

// splitRow splits a row at the bars that are not escaped.
func splitRow(row string) []string {
	row = strings.TrimSpace(row)
	row = strings.TrimPrefix(row, "|")
	if strings.HasSuffix(row, "|") && !strings.HasSuffix(row, `\|`) {
		row = strings.TrimSuffix(row, "|")
	}
	fields := strings.Split(strings.ReplaceAll(row, `\|`, "\x00"), "|")
	for i, field := range fields {
		fields[i] = strings.TrimSpace(strings.ReplaceAll(field, "\x00", "|"))
	}
	return fields
}

var style = regexp.MustCompile("\x1b\\[[0-9;]*m")

// shownWidth is how many cells a rendered text takes.
func shownWidth(text string) int { return runewidth.StringWidth(style.ReplaceAllString(text, "")) }
