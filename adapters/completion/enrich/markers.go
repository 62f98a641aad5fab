package enrich

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The markers are comment lines of YAML and TOML. Everything between them, with the marker lines, belongs to
// enrich; every other byte of a note belongs to its author. beginHeader marks front matter that enrich added as a
// whole, so that removing it gives back a note without front matter.
const (
	beginBlock  = "# companion:begin"
	beginHeader = "# companion:begin (this front matter was added by companion)"
	endBlock    = "# companion:end"
	blockKey    = "companion"
)

// errHeader refuses front matter that cannot take a block.
var errHeader = errors.New("its front matter cannot take another key; use --write sidecar")

// frontMatter is the place of front matter in a note: data[start:end] is its text, without the delimiter lines.
// data[:first] is a byte order mark; data[rest:] follows the closing line.
type frontMatter struct {
	first, start, end, rest int
	toml                    bool
}

// findFrontMatter finds a delimiter line at the top and the line that closes it. The text between them need not be front
// matter: the parsers decide that.
func findFrontMatter(data []byte) (f frontMatter, ok bool) {
	if bytes.HasPrefix(data, []byte("\ufeff")) {
		f.first = len("\ufeff")
	}
	line, _, more := bytes.Cut(data[f.first:], []byte("\n"))
	closers := []string{"---", "..."}
	switch delimiter(line) {
	case "---":
	case "+++":
		f.toml, closers = true, []string{"+++"}
	default:
		return f, false
	}
	if !more {
		return f, false
	}
	f.start = f.first + len(line) + 1
	for f.end = f.start; f.end < len(data) && f.end-f.start <= maxHeader; {
		line, _, more = bytes.Cut(data[f.end:], []byte("\n"))
		if slices.Contains(closers, delimiter(line)) {
			if f.rest = f.end + len(line); more {
				f.rest++
			}
			return f, true
		}
		f.end += len(line) + 1
	}
	return f, false
}

// delimiter is a line without the white space that may follow a delimiter.
func delimiter(line []byte) string { return strings.TrimRight(string(line), " \t\r") }

// maxBlocks bounds the blocks that are removed from one note. enrich writes one; a note that repeats it a thousand times
// must not cost a copy for each.
const maxBlocks = 8

// withoutBlocks returns the note without what enrich wrote into its front matter, and the digest of the note
// that the block names. The result shares no memory with data where anything was removed.
func withoutBlocks(data []byte) (plain []byte, source string) {
	for range maxBlocks {
		f, ok := findFrontMatter(data)
		if !ok {
			return data, source
		}
		from, to, whole := findBlock(data, f)
		if to == 0 {
			return data, source
		}
		if named := blockSource(data[from:to]); named != "" {
			source = named
		}
		if whole {
			from, to = f.first, f.rest
		}
		data = slices.Concat(data[:from], data[to:])
	}
	return data, source
}

// findBlock finds the first block in front matter. whole reports that the front matter consists of a block that added it.
func findBlock(data []byte, f frontMatter) (from, to int, whole bool) {
	begin := ""
	for at := f.start; at < f.end; {
		line, _, _ := bytes.Cut(data[at:f.end], []byte("\n"))
		text := strings.TrimSuffix(string(line), "\r")
		next := min(at+len(line)+1, f.end)
		switch {
		case begin == "" && (text == beginBlock || text == beginHeader):
			begin, from = text, at
		case begin != "" && text == endBlock:
			if !ours(data[from:next], f.toml) {
				return 0, 0, false
			}
			return from, next, begin == beginHeader && from == f.start && next == f.end
		}
		at = next
	}
	return 0, 0, false
}

// blockKeys are the keys of a block, in order. A later version that writes other keys must still know these.
var blockKeys = []string{"summary", "tags", "open_questions", "model", "model_version", "lane", "created_at", "source_sha256"}

// ours reports whether the lines between two markers are exactly those that renderBlock writes. Anything else is the
// author's text, which is never removed.
func ours(block []byte, asTOML bool) bool {
	lines := strings.Split(strings.TrimRight(strings.ReplaceAll(string(block), "\r\n", "\n"), "\n"), "\n")
	table, indent, is := blockKey+":", "  ", ": "
	if asTOML {
		table, indent, is = "["+blockKey+"]", "", " = "
	}
	if len(lines) != len(blockKeys)+3 || lines[1] != table {
		return false
	}
	for i, key := range blockKeys {
		value, ok := strings.CutPrefix(lines[i+2], indent+key+is)
		if !ok || !json.Valid([]byte(value)) {
			return false
		}
	}
	return true
}

// blockSource returns the digest that a block names.
func blockSource(block []byte) string {
	for line := range bytes.Lines(block) {
		key, value, _ := strings.Cut(strings.TrimSpace(string(line)), ":")
		if tomlKey, tomlValue, ok := strings.Cut(key, "="); ok {
			key, value = tomlKey, tomlValue
		}
		var digest string
		if strings.TrimSpace(key) == "source_sha256" && json.Unmarshal([]byte(strings.TrimSpace(value)), &digest) == nil {
			return digest
		}
	}
	return ""
}

// withBlock returns the note with r between markers. Outside them every byte stays: withoutBlocks gives back
// what it would give back of data.
func withBlock(data []byte, r Result) ([]byte, error) {
	plain, _ := withoutBlocks(data)
	newline := "\n"
	if line, _, found := bytes.Cut(plain, []byte("\n")); found && bytes.HasSuffix(line, []byte("\r")) {
		newline = "\r\n"
	}
	f, ok := findFrontMatter(plain)
	parse := yamlHeader
	if f.toml {
		parse = tomlHeader
	}
	var old header
	if ok {
		old, ok = contained(parse, plain[f.start:f.end])
	}
	if !ok { // no front matter, or prose between two rulers
		old, parse = header{}, yamlHeader
	}
	var written []byte
	if ok {
		if slices.Contains(old.keys, blockKey) {
			return nil, fmt.Errorf("its front matter has a key %q of its own; rename that key, or use --write sidecar", blockKey)
		}
		block, err := renderBlock(r, beginBlock, newline, f.toml)
		if err != nil {
			return nil, err
		}
		written = slices.Concat(plain[:f.end], block, plain[f.end:])
	} else {
		block, err := renderBlock(r, beginHeader, newline, false)
		if err != nil {
			return nil, err
		}
		delimiter := []byte("---" + newline)
		written = slices.Concat(plain[:f.first], delimiter, block, delimiter, plain[f.first:])
	}
	return written, checkBlock(written, plain, old, parse)
}

// checkBlock makes sure that the written note still has readable front matter, with the keys that it had and one more,
// and that the plain note comes back.
func checkBlock(written, plain []byte, old header, parse func([]byte) (header, bool)) error {
	back, _ := withoutBlocks(written)
	f, ok := findFrontMatter(written)
	if !ok || !bytes.Equal(back, plain) {
		return errHeader
	}
	now, ok := contained(parse, written[f.start:f.end])
	want := append(slices.Clone(old.keys), blockKey)
	slices.Sort(want)
	slices.Sort(now.keys)
	if !ok || !slices.Equal(now.keys, want) || now.title != old.title || now.event != old.event {
		return errHeader
	}
	return nil
}

// renderBlock writes values as JSON strings and arrays, which YAML and TOML read alike.
func renderBlock(r Result, begin, newline string, asTOML bool) ([]byte, error) {
	var b strings.Builder
	b.WriteString(begin + newline)
	indent, is := "  ", ": "
	if asTOML {
		indent, is = "", " = "
		b.WriteString("[" + blockKey + "]" + newline)
	} else {
		b.WriteString(blockKey + ":" + newline)
	}
	for i, of := range []any{
		r.Summary, r.Tags, r.OpenQuestions, r.Provenance.Model, r.Provenance.ModelVersion, r.Provenance.Lane,
		r.Provenance.CreatedAt.Format(time.RFC3339), r.Source.SHA256,
	} {
		value, err := json.Marshal(of)
		if err != nil {
			return nil, fmt.Errorf("encoding %s: %w", blockKeys[i], err)
		}
		b.WriteString(indent + blockKeys[i] + is + escapeHidden(string(value)) + newline)
	}
	b.WriteString(endBlock + newline)
	return []byte(b.String()), nil
}
