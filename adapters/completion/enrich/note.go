package enrich

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"
)

// MaxNote bounds the file of one note, in bytes.
const MaxNote = 16 << 20

// Standard is the path that names standard input.
const Standard = "-"

// Note is a Markdown note. All of it is data, never instruction (E6).
type Note struct {
	Path   string // as the user named it, for messages
	Real   string // absolute, without symbolic links; Standard for standard input
	Digest string // sha256 of the file without what enrich wrote into it, hex
	Block  string // the Digest of the note that enrich's block in it was made of; empty without a block
	Event  string // the event it came from, for provenance
	Title  string
	Body   string
}

// eventPattern is what a note may say about its event: enough for ids, too little for text.
var eventPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$`)

// ReadNote reads one note; Standard is standard input. One note is the same note under every spelling of its path.
func ReadNote(path string) (Note, error) {
	if path == Standard {
		return readNote(path, Standard, os.Stdin)
	}
	real, err := realPath(path)
	if err != nil {
		return Note{}, fmt.Errorf("reading the note: %w", err)
	}
	info, err := os.Stat(real)
	if err != nil {
		return Note{}, fmt.Errorf("reading the note: %w", err)
	}
	if !info.Mode().IsRegular() {
		return Note{}, errors.New("reading the note: not a regular file")
	}
	if isMarkdown(path) && !isMarkdown(real) { // a link in a vault from elsewhere could name any file of the user
		return Note{}, fmt.Errorf("reading the note: it is a link to %s, which is no Markdown file; name that file itself to read it", real)
	}
	file, err := os.Open(real)
	if err != nil {
		return Note{}, fmt.Errorf("reading the note: %w", err)
	}
	defer func() { _ = file.Close() }()
	return readNote(path, real, file)
}

func readNote(path, real string, in io.Reader) (Note, error) {
	data, err := io.ReadAll(io.LimitReader(in, MaxNote+1))
	if err != nil {
		return Note{}, fmt.Errorf("reading the note: %w", err)
	}
	note, err := ParseNote(path, data)
	note.Real = real
	return note, err
}

// realPath is absolute and has no symbolic link in it.
func realPath(path string) (string, error) {
	whole, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(whole)
}

// ParseNote reads a note with or without front matter. Front matter that cannot be read counts as text: a typing
// error in it does not refuse the note. Of the front matter only title and source_event_id are used; without an id
// the note's digest is the id.
func ParseNote(path string, data []byte) (Note, error) {
	if len(data) > MaxNote {
		return Note{}, fmt.Errorf("the note is larger than %d MiB", MaxNote>>20)
	}
	if !utf8.Valid(data) {
		return Note{}, errors.New("the note is not UTF-8 text")
	}
	data, block := withoutBlocks(data)
	sum := sha256.Sum256(data)
	note := Note{Path: path, Real: path, Digest: hex.EncodeToString(sum[:]), Block: block}
	note.Event = "sha256:" + note.Digest[:32]
	head, body := splitHeader(data)
	note.Title = head.title
	if eventPattern.MatchString(head.event) {
		note.Event = head.event
	}
	note.Body = strings.TrimSpace(string(body))
	if note.Body == "" && note.Title == "" {
		return Note{}, errors.New("the note is empty")
	}
	return note, nil
}
