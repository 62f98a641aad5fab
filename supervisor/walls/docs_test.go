package walls

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"companion/adapters/config"
	"companion/messages"
)

const root = "../.."

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// some fails the test when a pattern matches less often than expected: then the document has another form,
// and the checks below would pass without checking anything.
func some(t *testing.T, what string, found [][]string, least int) [][]string {
	t.Helper()
	if len(found) < least {
		t.Fatalf("found %d %s, want at least %d: nothing would be checked", len(found), what, least)
	}
	return found
}

// between returns the section of a document below a heading of the second level.
func between(t *testing.T, text, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("there is no section %q", heading)
	}
	section, _, _ := strings.Cut(rest, "\n## ")
	return section
}

// same compares a document's rows with the program's, by key.
func same(t *testing.T, what string, documented, real map[string]string) {
	t.Helper()
	for _, key := range slices.Sorted(maps.Keys(real)) {
		if _, ok := documented[key]; !ok {
			t.Errorf("%s %s is not documented: | %s |", what, key, real[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(documented)) {
		switch want, ok := real[key]; {
		case !ok:
			t.Errorf("%s %s is documented and does not exist", what, key)
		case documented[key] != want:
			t.Errorf("%s %s is documented as\n%s, it is\n%s", what, key, documented[key], want)
		}
	}
}

var (
	testName = regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z]\\w*)`")
	// cited is one or more names, then the link to the file that holds them all.
	cited = regexp.MustCompile("((?:`(?:Test|Fuzz|Benchmark)\\w+`(?:, | and )?)+) \\(\\[[^\\]]+\\]\\(\\.\\./([^)]+)\\)\\)")
	link  = regexp.MustCompile(`\]\(([^)#\s]+)(?:#[^)]*)?\)`)
)

// Every proof that docs/security.md cites exists in the cited file, and every threat has one.
func TestCitedProofs(t *testing.T) {
	document := read(t, "docs/security.md")
	text := strings.Join(strings.Fields(document), " ") // a citation may be wrapped
	names := 0
	for _, match := range some(t, "citations", cited.FindAllStringSubmatch(text, -1), 40) {
		source := read(t, match[2])
		for _, name := range testName.FindAllStringSubmatch(match[1], -1) {
			names++
			if !strings.Contains(source, "\nfunc "+name[1]+"(") {
				t.Errorf("%s is not in %s", name[1], match[2])
			}
		}
	}
	if all := len(testName.FindAllString(text, -1)); all != names {
		t.Errorf("%d of %d names of tests are cited without their file", all-names, all)
	}
	for n := 1; n <= 17; n++ {
		_, section, _ := strings.Cut(document, fmt.Sprintf("\n### T%d ", n))
		section, _, _ = strings.Cut(section, "\n### ")
		if !cited.MatchString(strings.Join(strings.Fields(section), " ")) {
			t.Errorf("T%d cites no proof: %q", n, section)
		}
	}
}

// Every relative link in the documents leads to an existing file.
func TestDocumentLinks(t *testing.T) {
	documents, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(documents) < 4 {
		t.Fatalf("documents: %q, %v", documents, err)
	}
	for _, path := range append(documents, filepath.Join(root, "README.md")) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range link.FindAllStringSubmatch(string(data), -1) {
			if strings.Contains(match[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), match[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", filepath.Base(path), match[1])
			}
		}
	}
}

// X5: docs/cli.md has every configuration key with its default, what it accepts and what it is
// for, and no other.
func TestDocumentedKeys(t *testing.T) {
	_, values, err := config.Load(config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var refuse []string
	real := map[string]string{}
	for _, v := range values {
		refuse = append(refuse, v.Key+"=\x01")
		real[v.Key] = config.Literal(v.Value)
	}
	// The refusal of a bad value states what the key accepts.
	_, _, err = config.Load(config.Options{Flags: refuse})
	if err == nil {
		t.Fatal("no key refuses a control character")
	}
	accepted := some(t, "refusals", regexp.MustCompile(`(?m)(\S+): this value is not accepted; accepted: (.*)$`).FindAllStringSubmatch(err.Error(), -1), len(values))
	for _, match := range accepted {
		real[match[1]] += " | " + match[2]
	}
	purposes := some(t, "keys of the template", regexp.MustCompile(`(?m)^(?:\[(.+)\]|(\w+) = .*?\s+# (.*))$`).FindAllStringSubmatch(config.Template(), -1), len(values))
	section := ""
	for _, match := range purposes {
		if match[1] != "" {
			section = match[1] + "."
			continue
		}
		real[section+match[2]] += " | " + strings.ReplaceAll(match[3], "|", `\|`)
	}
	documented := map[string]string{}
	text := between(t, read(t, "docs/cli.md"), "Configuration")
	for _, match := range some(t, "keys", regexp.MustCompile("(?m)^\\| `([\\w.]+)` \\| `(.*?)` \\| (.*) \\|$").FindAllStringSubmatch(text, -1), 50) {
		documented[match[1]] = match[2] + " | " + match[3]
	}
	same(t, "the key", documented, real)
}

// X3: docs/cli.md has every exit status and every reason, with the words and the status that the
// command line gives it.
func TestDocumentedOutcomes(t *testing.T) {
	reference, failure := read(t, "docs/cli.md"), read(t, "cmd/companion/failure.go")
	status := map[string]string{} // of the constant
	real, documented := map[string]string{}, map[string]string{}
	for _, match := range some(t, "exit constants", regexp.MustCompile(`(?m)^\t(exit\w+) += (\d+)$`).FindAllStringSubmatch(failure, -1), 10) {
		status[match[1]] = match[2]
	}
	_, meanings, _ := strings.Cut(failure, "var exitMeaning = ")
	meanings, _, _ = strings.Cut(meanings, "\n}\n")
	for _, match := range some(t, "exit meanings", regexp.MustCompile(`(exit\w+): "([^"]+)"`).FindAllStringSubmatch(meanings, -1), 10) {
		real[status[match[1]]] = match[2]
	}
	for _, match := range some(t, "exit statuses", regexp.MustCompile(`(?m)^\| (\d+) \| ([^|]+) \|`).FindAllStringSubmatch(between(t, reference, "Exit status"), -1), 10) {
		documented[match[1]] = match[2]
	}
	same(t, "the exit status", documented, real)

	value, words := map[string]string{}, map[string]string{} // by the constant's name
	for _, match := range some(t, "reasons", regexp.MustCompile(`(Reason\w+)\s+Reason = "(\w+)"`).FindAllStringSubmatch(read(t, "messages/reason.go"), -1), 80) {
		value[match[1]] = match[2]
	}
	for _, match := range some(t, "explanations", regexp.MustCompile(`messages\.(Reason\w+):\s+"(.*)",`).FindAllStringSubmatch(read(t, "cmd/companion/explain.go"), -1), 40) {
		words[match[1]] = match[2]
	}
	ends := map[string]string{}
	for _, match := range some(t, "cases of exitOf", regexp.MustCompile(`(?s)case (messages\.Reason[^:]*):\s+return (exit\w+)`).FindAllStringSubmatch(failure, -1), 5) {
		for _, name := range regexp.MustCompile(`Reason\w+`).FindAllString(match[1], -1) {
			ends[name] = status[match[2]]
		}
	}
	rows := map[string][]string{}
	for _, match := range some(t, "reasons in the document", regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\d+) \\| ([^|]+) \\| ([^|]+) \\|$").FindAllStringSubmatch(between(t, reference, "Reasons"), -1), 80) {
		rows[match[1]] = match[2:]
	}
	real, documented = map[string]string{}, map[string]string{}
	for name, reason := range value {
		if ends[name] == "" {
			ends[name] = status["exitFailed"]
		}
		real[reason] = ends[name] + " | " + words[name]
		if row := rows[reason]; row != nil && words[name] == "" {
			real[reason] += row[1] // no words of the command line's: the document's own
		}
	}
	for reason, row := range rows {
		documented[reason] = row[0] + " | " + row[1]
	}
	same(t, "the reason", documented, real)
}

// X3: docs/cli.md names every command of the program and every key of its status, and does not
// say of a command that exists that it does not.
func TestDocumentedCommands(t *testing.T) {
	reference := read(t, "docs/cli.md")
	commands := between(t, reference, "Commands")
	_, missing, _ := strings.Cut(commands, "\n| `config")
	files, err := filepath.Glob(filepath.Join(root, "cmd", "companion", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, file := range files {
		source.WriteString(read(t, strings.TrimPrefix(file, root)))
	}
	absent := regexp.MustCompile(`(?m)^(.*) do not exist yet\.`).FindString(missing)
	for _, match := range some(t, "commands", regexp.MustCompile(`Use: +"([a-z]+)`).FindAllStringSubmatch(source.String(), -1), 20) {
		name := match[1]
		if name != "companion" && !regexp.MustCompile("(?:[`|]|`(?:config|enrich|service|token) )"+name+`\b`).MatchString(commands) {
			t.Errorf("the command %s is not documented", name)
		}
		if strings.Contains(absent, "`"+name+"`") {
			t.Errorf("the command %s exists", name)
		}
	}

	keys, section := statusKeys(reflect.TypeFor[messages.Status]()), between(t, reference, "`status --json`")
	if len(keys) < 40 {
		t.Fatalf("the status has only %d keys: %q", len(keys), keys)
	}
	for _, key := range keys {
		if key != "upToMilliseconds" && key != "count" && !strings.Contains(section, "`"+key+"`") {
			t.Errorf("the key %s of the status is not documented", key)
		}
	}
}

// statusKeys lists the JSON keys of a type and of all inside it.
func statusKeys(of reflect.Type) []string {
	switch of.Kind() {
	case reflect.Pointer, reflect.Slice:
		return statusKeys(of.Elem())
	case reflect.Struct:
	default:
		return nil
	}
	var keys []string
	for i := range of.NumField() {
		field := of.Field(i)
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" {
			keys = append(append(keys, name), statusKeys(field.Type)...)
		}
	}
	return keys
}
