package gguf

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// splitSuffix ends the name of a part as llama.cpp writes it (llama_split_path).
var splitSuffix = regexp.MustCompile(`-00001-of-(\d{5})\.gguf$`)

// PartFiles returns the paths of the parts 2 to n of a split model, next to the first, by the pattern of its name. false: the name
// does not follow the pattern, or says another number of parts.
func PartFiles(first string, n int) ([]string, bool) {
	suffix := splitSuffix.FindStringSubmatch(filepath.Base(first))
	if suffix == nil || suffix[1] != fmt.Sprintf("%05d", n) {
		return nil, false
	}
	prefix := strings.TrimSuffix(first, suffix[0])
	var parts []string
	for i := 2; i <= n; i++ {
		parts = append(parts, fmt.Sprintf("%s-%05d-of-%05d.gguf", prefix, i, n))
	}
	return parts, true
}

// WithoutPart is the name of a split model: the name of its first part without what names the part.
func WithoutPart(first string) string { return splitSuffix.ReplaceAllString(first, ".gguf") }
