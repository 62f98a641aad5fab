package artifact

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"companion/messages"
)

// Limits of a model of several files and of its settings (M17).
const (
	MaxParts    = 64       // files of a split model, the first one included
	MaxContext  = 16 << 20 // tokens
	MaxTemplate = 64 << 10 // bytes of a chat template
)

// Range is what a default of a field of a request may be.
type Range struct {
	Min, Max float64
	Integer  bool
}

// Sampling are the fields of a request that may have a default, as the endpoint bounds them.
var Sampling = map[string]Range{
	"temperature":       {0, 2, false},
	"top_p":             {0, 1, false},
	"top_k":             {0, 999999, true},
	"min_p":             {0, 1, false},
	"repeat_penalty":    {0.01, 10, false},
	"presence_penalty":  {-2, 2, false},
	"frequency_penalty": {-2, 2, false},
}

var partName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// Members returns the files of an artifact. One without parts is its only file.
func Members(a messages.Artifact) []messages.Artifact {
	if len(a.Parts) == 0 {
		return []messages.Artifact{a}
	}
	return a.Parts
}

// Compose returns the model of the first file and what its target says about the others (M17). A model of one file without
// settings is returned as it is. Errors: *Error.
func Compose(first messages.Artifact, custom messages.TargetCustom) (messages.Artifact, error) {
	if len(custom.Parts) == 0 && custom.Projector == nil && custom.Draft == nil && isPlain(custom.ModelSettings) {
		return first, nil
	}
	if first.Kind != messages.KindModel {
		return messages.Artifact{}, refuse("a runtime with the fields of a model")
	}
	if len(custom.Parts) >= MaxParts {
		return messages.Artifact{}, refuse("%d parts, want at most %d", len(custom.Parts)+1, MaxParts)
	}
	whole := messages.Artifact{
		Name: first.Name, Version: first.Version, Kind: first.Kind, Embedding: first.Embedding, Own: first.Own,
		PrivateHosts: first.PrivateHosts, Settings: custom.ModelSettings,
	}
	first.Role = messages.RoleWeights
	whole.Parts = []messages.Artifact{first}
	add := func(p messages.TargetPart, role messages.PartRole) error {
		part, err := fromTarget(p, first, role)
		whole.Parts = append(whole.Parts, part)
		return err
	}
	for _, p := range custom.Parts {
		if err := add(p, messages.RoleWeights); err != nil {
			return messages.Artifact{}, err
		}
	}
	if custom.Projector != nil {
		if err := add(*custom.Projector, messages.RoleProjector); err != nil {
			return messages.Artifact{}, err
		}
	}
	if custom.Draft != nil {
		if err := add(*custom.Draft, messages.RoleDraft); err != nil {
			return messages.Artifact{}, err
		}
	}
	for _, p := range whole.Parts {
		if p.Size <= 0 || p.Size > MaxSize {
			return messages.Artifact{}, refuse("%s has a size of %d bytes, want 1 to %d", p.Name, p.Size, int64(MaxSize))
		}
		whole.Size += p.Size
	}
	whole.SHA256 = identity(whole)
	return whole, nil
}

// isPlain reports whether the publisher left everything to the model.
func isPlain(s messages.ModelSettings) bool {
	return s.Context == 0 && s.ChatTemplate == "" && len(s.Sampling) == 0
}

func fromTarget(p messages.TargetPart, first messages.Artifact, role messages.PartRole) (messages.Artifact, error) {
	sum, ok := digest(p.SHA256)
	if !ok {
		return messages.Artifact{}, refuse("a part without a digest in lower-case hex")
	}
	chunks, err := Chunks(p.Chunks)
	if err != nil {
		return messages.Artifact{}, err
	}
	return messages.Artifact{
		Name: p.Name, Version: first.Version, Kind: messages.KindModel, URLs: p.URLs, Origins: p.Origins, PrivateHosts: first.PrivateHosts,
		SHA256: sum, Size: p.Length, ChunkSize: p.ChunkSize, Chunks: chunks, Own: first.Own, Role: role,
	}, nil
}

// identity identifies a model of several parts by the digests of its files, in their roles and order, and by its settings: a
// model with other settings is another one, which must become ready before the earlier one is given up (M13).
func identity(a messages.Artifact) [32]byte {
	h := sha256.New()
	fmt.Fprintln(h, "companion model 1")
	for _, p := range a.Parts {
		fmt.Fprintf(h, "%s %x\n", p.Role, p.SHA256)
	}
	settings, _ := json.Marshal(a.Settings) // numbers and texts: it cannot fail
	h.Write(settings)
	return [32]byte(h.Sum(nil))
}

// checkParts checks a model of several files.
func checkParts(a messages.Artifact) error {
	if a.Kind != messages.KindModel {
		return refuse("a runtime with the fields of a model")
	}
	if len(a.URLs)+len(a.Origins)+len(a.Chunks) != 0 || a.ChunkSize != 0 || a.Format != "" || a.Executable != "" || len(a.Files) != 0 {
		return refuse("a model of several files with the fields of one file")
	}
	if a.SHA256 != identity(a) {
		return refuse("a model of several files with the digest of other files")
	}
	count := map[messages.PartRole]int{}
	names, weights := map[string]bool{}, map[[32]byte]bool{}
	var total int64
	for i, p := range a.Parts {
		count[p.Role]++
		switch {
		case len(p.Parts) != 0 || !isPlain(p.Settings) || p.Own != a.Own:
			return refuse("part %d of a model is a model of several files", i+1)
		case !partName.MatchString(p.Name):
			return refuse("part %d has no name of letters, digits, '.', '_' and '-'", i+1)
		case names[p.Name]:
			return refuse("two parts are named %s", p.Name)
		// A draft may be the model itself, which guesses nothing in less time, and harms nothing.
		case p.Role != messages.RoleDraft && weights[p.SHA256]:
			return refuse("%s has the digest of another part", p.Name)
		}
		names[p.Name] = true
		if p.Role != messages.RoleDraft {
			weights[p.SHA256] = true
		}
		if err := Check(p); err != nil {
			return err
		}
		total += p.Size
	}
	switch {
	case a.Parts[0].Role != messages.RoleWeights || count[messages.RoleWeights] > MaxParts:
		return refuse("%d files of weights, want 1 to %d, and the first of them first", count[messages.RoleWeights], MaxParts)
	case count[messages.RoleProjector] > 1 || count[messages.RoleDraft] > 1:
		return refuse("more than one projector or draft model")
	case count[messages.RoleWeights]+count[messages.RoleProjector]+count[messages.RoleDraft] != len(a.Parts):
		return refuse("a part without a known role")
	case total != a.Size || total > MaxSize:
		return refuse("a model of %d bytes, want the sum of its parts, and at most %d", a.Size, int64(MaxSize))
	}
	return checkSettings(a.Settings)
}

func checkSettings(s messages.ModelSettings) error {
	switch {
	case s.Context < 0 || s.Context > MaxContext:
		return refuse("a context of %d tokens, want 1 to %d", s.Context, MaxContext)
	case len(s.ChatTemplate) > MaxTemplate || !utf8.ValidString(s.ChatTemplate):
		return refuse("a chat template of %d bytes, want UTF-8 text of at most %d", len(s.ChatTemplate), MaxTemplate)
	}
	for name, value := range s.Sampling {
		r, known := Sampling[name]
		if !known {
			return refuse("a default for the field %.40q, which has none", name)
		}
		if !r.Has(value) {
			return refuse("a default of %.40q for %s, want a decimal number from %v to %v", value, name, r.Min, r.Max)
		}
	}
	return nil
}

var decimal = regexp.MustCompile(`^-?(0|[1-9][0-9]{0,5})(\.[0-9]{1,6})?$`)

// Has reports whether text is a decimal number in the range.
func (r Range) Has(text string) bool {
	value, err := strconv.ParseFloat(text, 64)
	if r.Min >= 0 && strings.HasPrefix(text, "-") {
		return false
	}
	return err == nil && decimal.MatchString(text) && value >= r.Min && value <= r.Max && !(r.Integer && strings.ContainsAny(text, ".-"))
}
