package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/agext/levenshtein"
	"github.com/knadh/koanf/parsers/toml/v2"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	gotoml "github.com/pelletier/go-toml/v2"
)

// EnvPrefix begins the environment variables that set a key: COMPANION_HUB_URL sets hub.url.
const EnvPrefix = "COMPANION_"

// maxFile bounds the configuration file; a real one has a few kilobytes.
const maxFile = 1 << 20

// Options are the sources of values, lowest priority first: defaults, File, Environ, Flags.
type Options struct {
	File     string   // path of the TOML file; empty: none
	Required bool     // the file must exist: the user named it
	Environ  []string // in the format of os.Environ
	Flags    []string // "section.key=value"
}

// Source is the origin of an effective value.
type Source string

// The sources, lowest first.
const (
	FromDefault     Source = "default"
	FromFile        Source = "file"
	FromEnvironment Source = "environment"
	FromFlag        Source = "flag"
)

// Value is one effective value, for `config show`. Where is the file and line, the variable or the flag.
type Value struct {
	Key    string `json:"key"`
	Value  any    `json:"value"`
	Source Source `json:"source"`
	Where  string `json:"where,omitempty"`
}

// Problem is one refused name or value. Line is zero if there is none.
type Problem struct {
	Where   string `json:"where"` // the file, the variable or the flag
	Line    int    `json:"line,omitempty"`
	Key     string `json:"key,omitempty"`
	Message string `json:"message"`
}

func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.Where)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	b.WriteString(": ")
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	return b.String() + p.Message
}

// Error lists all problems, in the order of the layers (X5).
type Error struct{ Problems []Problem }

func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// layer is one source of values.
type layer struct {
	source Source
	values *koanf.Koanf
	where  func(key string) (place string, line int)
}

// Default returns the settings of an empty configuration.
func Default() Settings {
	var s Settings
	for _, k := range table {
		if err := k.set(&s, k.initial); err != nil {
			panic("settings: default of " + k.name + " is refused by its own check")
		}
	}
	return s
}

// Load reads all layers and checks every value. The error is an *Error if a name or value was refused, else the error of
// reading the file.
func Load(o Options) (Settings, []Value, error) {
	file, problems, err := fileLayer(o)
	if err != nil {
		return Settings{}, nil, err
	}
	environment, more := environmentLayer(o.Environ)
	problems = append(problems, more...)
	flags, more := flagLayer(o.Flags)
	problems = append(problems, more...)

	s := Default()
	values := make([]Value, 0, len(table))
	for _, k := range table {
		value := Value{Key: k.name, Value: k.initial, Source: FromDefault}
		for _, l := range []layer{file, environment, flags} {
			if !l.values.Exists(k.name) {
				continue
			}
			v := l.values.Get(k.name)
			place, line := l.where(k.name)
			if err := k.set(&s, v); err != nil {
				problems = append(problems, Problem{place, line, k.name, "this value is not accepted; accepted: " + k.accepts})
				continue
			}
			value = Value{Key: k.name, Value: v, Source: l.source, Where: place}
			if line > 0 {
				value.Where = fmt.Sprintf("%s:%d", place, line)
			}
		}
		values = append(values, value)
	}
	problems = append(problems, together(s, values)...)
	if len(problems) > 0 {
		return Settings{}, nil, &Error{problems}
	}
	return s, values, nil
}

// probeTime bounds one health probe: its deadline (actors/door/health) plus the transport.
const probeTime = 4 * time.Second

// together checks conditions that concern several keys.
func together(s Settings, values []Value) []Problem {
	if s.Health.Recency >= s.Health.Beat+probeTime {
		return nil
	}
	i := slices.IndexFunc(values, func(v Value) bool { return v.Key == "health.recency" })
	return []Problem{{Where: cmpOr(values[i].Where, "defaults"), Key: "health.recency",
		Message: "must be at least health.beat and 4s, which a probe may take, or availability would flicker between two probes"}}
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func fileLayer(o Options) (layer, []Problem, error) {
	l := layer{FromFile, koanf.New("."), func(string) (string, int) { return o.File, 0 }}
	if o.File == "" {
		return l, nil, nil
	}
	data, err := readBounded(o.File)
	if errors.Is(err, fs.ErrNotExist) && !o.Required {
		return l, nil, nil
	}
	if err != nil {
		return l, nil, fmt.Errorf("reading the configuration: %w", err)
	}
	if err := l.values.Load(rawbytes.Provider(data), toml.Parser()); err != nil {
		return l, []Problem{syntaxProblem(o.File, err)}, nil
	}
	keys, err := positions(data)
	if err != nil {
		return l, []Problem{syntaxProblem(o.File, err)}, nil
	}
	l.where = func(name string) (string, int) { return o.File, keys.line(name) }
	var problems []Problem
	for _, at := range keys {
		if !known(at.name, at.isTable) {
			problems = append(problems, Problem{o.File, at.line, at.name, unknown(at.name, at.isTable)})
		}
	}
	return l, problems, nil
}

func readBounded(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%s is not a regular file of at most 1 MiB", path)
	}
	return os.ReadFile(path)
}

func syntaxProblem(file string, err error) Problem {
	var at *gotoml.DecodeError
	if errors.As(err, &at) {
		row, _ := at.Position()
		return Problem{Where: file, Line: row, Message: "not TOML: " + strings.TrimPrefix(at.Error(), "toml: ")}
	}
	return Problem{Where: file, Message: "not TOML: " + err.Error()}
}

// environmentLayer reads the environment variables. It refuses those that look like a misspelt key: they are or begin with a
// section's name, or differ from a key's variable by at most two characters. It ignores other COMPANION_ variables, which
// Unknown lists.
func environmentLayer(environ []string) (layer, []Problem) {
	var problems []Problem
	names := variables()
	l := layer{FromEnvironment, koanf.New("."), func(key string) (string, int) { return variable(key), 0 }}
	provider := env.Provider(".", env.Opt{
		Prefix:      EnvPrefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			key, ok := names[name]
			if !ok && (looksLikeKey(name) || nearKey(name) != "") {
				problems = append(problems, Problem{Where: name, Message: "sets no key; " + advice(name)})
			}
			return key, layerText(value)
		},
	})
	// The provider only rearranges strings; it cannot fail.
	_ = l.values.Load(provider, nil)
	return l, problems
}

// variables maps the name of each environment variable to its key.
func variables() map[string]string {
	names := map[string]string{}
	for _, k := range table {
		names[variable(k.name)] = k.name
	}
	return names
}

// Keys lists the names of all keys, in the order of the commented file.
func Keys() []string {
	names := make([]string, len(table))
	for i, k := range table {
		names[i] = k.name
	}
	return names
}

// nearKey returns the variable that name is probably a misspelling of, or an empty string.
func nearKey(name string) string {
	best, bestAt := "", 3
	for candidate := range variables() {
		if far := levenshtein.Distance(name, candidate, nil); far < bestAt || far == bestAt && candidate < best {
			best, bestAt = candidate, far
		}
	}
	return best
}

func advice(name string) string {
	if near := nearKey(name); near != "" {
		return "did you mean " + near + "?"
	}
	return "accepted: " + EnvPrefix + "SECTION_KEY, as in " + variable("hub.url")
}

// Unknown lists the COMPANION_ variables of environ that set no key and are not refused.
func Unknown(environ []string) []string {
	names := variables()
	var unknown []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if _, known := names[name]; strings.HasPrefix(name, EnvPrefix) && !known {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}

func variable(key string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

func looksLikeKey(name string) bool {
	return slices.ContainsFunc(table, func(k key) bool {
		section, _, _ := strings.Cut(k.name, ".")
		return name == variable(section) || strings.HasPrefix(name, variable(section)+"_")
	})
}

func flagLayer(flags []string) (layer, []Problem) {
	l := layer{FromFlag, koanf.New("."), func(key string) (string, int) { return "--set " + key, 0 }}
	var problems []Problem
	for _, flag := range flags {
		name, value, ok := strings.Cut(flag, "=")
		switch {
		case !ok:
			problems = append(problems, Problem{Where: "--set", Message: "accepted: SECTION.KEY=VALUE, as in hub.url=https://hub.example"})
		case !known(name, false):
			problems = append(problems, Problem{Where: "--set", Key: name, Message: unknown(name, false)})
		default:
			_ = l.values.Set(name, layerText(value))
		}
	}
	return l, problems
}
