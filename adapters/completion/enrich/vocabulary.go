package enrich

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// mostVocabulary bounds the tags of a vocabulary: the request's grammar lists them, and the endpoint bounds its cost.
const mostVocabulary = 100

// ReadVocabulary reads the tags that results may use: from a file, one tag a line ("#" before a tag is ignored),
// or from the front matter of the notes in and below a folder. It returns at most 128 tags, the most frequent
// first, without those that are longer than a result allows; left is the number of tags that were left out.
func ReadVocabulary(ctx context.Context, path string) (tags []string, left int, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, fmt.Errorf("reading the tags: %w", err)
	}
	counts := map[string]int{}
	if info.IsDir() {
		err = countTags(ctx, path, counts)
	} else {
		err = listTags(path, counts)
	}
	if err != nil {
		return nil, 0, err
	}
	all := len(counts)
	maps.DeleteFunc(counts, func(tag string, _ int) bool { return !usableTag(tag) })
	tags = slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	tags = tags[:min(len(tags), mostVocabulary)]
	if len(tags) == 0 {
		return nil, all, fmt.Errorf("%s has no tags: it needs notes with tags in their front matter, or a file with one tag a line", path)
	}
	return tags, all - len(tags), nil
}

// usableTag reports whether a result can hold the tag unchanged.
func usableTag(tag string) bool {
	return tag != "" && utf8.ValidString(tag) && utf8.RuneCountInString(tag) <= longestTag && defang(tag) == tag &&
		!strings.ContainsFunc(tag, unicode.IsControl)
}

func listTags(path string, counts map[string]int) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("reading the tags: %w", err)
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(io.LimitReader(file, 1<<20))
	for lines.Scan() {
		if tag := cleanTag(lines.Text()); tag != "" {
			counts[tag]++
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading the tags: %w", err)
	}
	return nil
}

func countTags(ctx context.Context, folder string, counts map[string]int) error {
	notes, _, err := Expand(ctx, []string{folder})
	if err != nil {
		return err
	}
	for _, path := range notes {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		data, err := readHead(path)
		if err != nil {
			continue // a note that cannot be read adds no tags; enriching it reports it
		}
		data, _ = withoutBlocks(data)
		for _, tag := range headerTags(data) {
			counts[tag]++
		}
	}
	return nil
}

// readHead reads as much of a note as front matter and a block of ours can take.
func readHead(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, os.ErrInvalid)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return io.ReadAll(io.LimitReader(file, 2*maxHeader))
}

// headerTags returns the tags of YAML front matter: a list, or text with commas or spaces between them.
func headerTags(data []byte) []string {
	f, ok := findFrontMatter(data)
	if !ok || f.toml {
		return nil
	}
	if _, ok := contained(yamlHeader, data[f.start:f.end]); !ok {
		return nil
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data[f.start:f.end], &doc); err != nil {
		return nil
	}
	var tags []string
	pairs := doc.Content[0].Content
	for i := 0; i+1 < len(pairs); i += 2 {
		if key := strings.ToLower(pairs[i].Value); key != "tags" && key != "tag" && key != "keywords" {
			continue
		}
		switch value := pairs[i+1]; value.Kind {
		case yaml.ScalarNode:
			for _, tag := range strings.FieldsFunc(value.Value, func(r rune) bool { return r == ',' || r == ' ' }) {
				tags = append(tags, cleanTag(tag))
			}
		case yaml.SequenceNode:
			for _, item := range value.Content {
				if item.Kind == yaml.ScalarNode {
					tags = append(tags, cleanTag(item.Value))
				}
			}
		}
	}
	return slices.DeleteFunc(tags, func(tag string) bool { return tag == "" })
}

func cleanTag(tag string) string { return strings.TrimLeft(strings.TrimSpace(tag), "#") }
