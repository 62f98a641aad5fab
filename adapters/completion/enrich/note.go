package enrich

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/adrg/frontmatter"
	"github.com/pelletier/go-toml/v2"
	"gopkg.in/yaml.v2"
)

// MaxNote bounds the file of one note.
const MaxNote = 16 << 20

// Note is a Markdown note. All of it is data, never instruction (E6).
type Note struct {
	Path   string // as the user named it
	Digest string // sha256 of the file, hex
	Event  string // the event it came from, for provenance
	Title  string
	Body   string
}

// formats of front matter. The library's JSON forms are left out: a note may begin with a brace.
var formats = []*frontmatter.Format{
	frontmatter.NewFormat("---", "---", yaml.Unmarshal),
	frontmatter.NewFormat("+++", "+++", toml.Unmarshal),
}

// eventPattern is what a note may say about its event: enough for ids, too little for text.
var eventPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$`)

// ParseNote reads a note with or without front matter. Front matter that cannot be read counts as
// text: somebody's note is not refused for a typing error in it. Of the front matter only title and
// source_event_id are looked at; without an id the note's digest stands for the event.
func ParseNote(path string, data []byte) (Note, error) {
	if len(data) > MaxNote {
		return Note{}, fmt.Errorf("the note is larger than %d MiB", MaxNote>>20)
	}
	if !utf8.Valid(data) {
		return Note{}, fmt.Errorf("the note is not UTF-8 text")
	}
	sum := sha256.Sum256(data)
	note := Note{Path: path, Digest: hex.EncodeToString(sum[:])}
	note.Event = "sha256:" + note.Digest[:32]
	var head struct {
		Title string `yaml:"title" toml:"title"`
		Event string `yaml:"source_event_id" toml:"source_event_id"`
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	body, err := parseHead(data, &head)
	if err != nil {
		body = data
	} else {
		note.Title = head.Title
		if eventPattern.MatchString(head.Event) {
			note.Event = head.Event
		}
	}
	note.Body = strings.TrimSpace(string(body))
	if note.Body == "" && note.Title == "" {
		return Note{}, fmt.Errorf("the note is empty")
	}
	return note, nil
}

// parseHead contains the YAML decoder: it turns some malformed documents into a panic.
func parseHead(data []byte, head any) (body []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("reading the front matter: %v", p)
		}
	}()
	return frontmatter.Parse(bytes.NewReader(data), head, formats...)
}

// cut shortens the text to at most limit bytes, at a paragraph, line or word where there is one in
// the last quarter. It reports whether anything was left out.
func cut(text string, limit int) (string, bool) {
	if len(text) <= limit {
		return text, false
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	short := text[:limit]
	for _, gap := range []string{"\n\n", "\n", " "} {
		if at := strings.LastIndex(short, gap); at >= limit*3/4 {
			return short[:at], true
		}
	}
	return short, true
}
