package artifact

import (
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"companion/messages"
)

func hexOf(b byte) string { return hex.EncodeToString(append([]byte{b}, make([]byte, 31)...)) }

func target(change func(*messages.TargetCustom)) messages.TargetCustom {
	c := messages.TargetCustom{
		Kind: messages.KindModel, Name: "m", Version: "1", URLs: []string{"https://models.example/v1/m"}, Origins: []string{"https://models.example/v1/"},
	}
	change(&c)
	return c
}

func part(b byte) messages.TargetPart {
	return messages.TargetPart{
		Name: fmt.Sprintf("p%d.gguf", b), Length: 10, SHA256: hexOf(b),
		URLs: []string{"https://models.example/v1/p"}, Origins: []string{"https://models.example/v1/"},
	}
}

func compose(c messages.TargetCustom) (messages.Artifact, error) {
	first := model()
	a, err := Compose(first, c)
	if err == nil {
		err = Check(a)
	}
	return a, err
}

// M17: what a model of several files may be. One fault makes the whole target unusable, so that no part of it is served.
func TestComposeRefuses(t *testing.T) {
	parts := func(list ...messages.TargetPart) messages.TargetCustom {
		return target(func(c *messages.TargetCustom) { c.Parts = list })
	}
	with := func(change func(*messages.TargetPart)) messages.TargetCustom {
		p := part(2)
		change(&p)
		return parts(p)
	}
	var many []messages.TargetPart
	for i := range MaxParts {
		many = append(many, part(byte(2+i)))
	}
	draft := part(1) // the digest of the first file
	for name, c := range map[string]struct {
		custom messages.TargetCustom
		good   bool
	}{
		"three parts":        {parts(part(2), part(3)), true},
		"as many as allowed": {parts(many[:MaxParts-1]...), true},
		"too many":           {parts(many...), false},
		"twice":              {parts(part(2), part(2)), false},
		"the first again":    {parts(part(1)), false},
		"own draft":          {target(func(c *messages.TargetCustom) { c.Draft = &draft }), true},
		"own projector":      {target(func(c *messages.TargetCustom) { c.Projector = &draft }), false},
		"one name":           {parts(part(2), func() messages.TargetPart { p := part(3); p.Name = "p2.gguf"; return p }()), false},
		"path as name":       {with(func(p *messages.TargetPart) { p.Name = "../p" }), false},
		"no name":            {with(func(p *messages.TargetPart) { p.Name = "" }), false},
		"no length":          {with(func(p *messages.TargetPart) { p.Length = 0 }), false},
		"negative":           {with(func(p *messages.TargetPart) { p.Length = -1 }), false},
		"too long":           {with(func(p *messages.TargetPart) { p.Length = MaxSize + 1 }), false},
		"sum too long":       {with(func(p *messages.TargetPart) { p.Length = MaxSize }), false},
		"capital digest":     {with(func(p *messages.TargetPart) { p.SHA256 = strings.Repeat("AB", 32) }), false},
		"no digest":          {with(func(p *messages.TargetPart) { p.SHA256 = "" }), false},
		"no URL":             {with(func(p *messages.TargetPart) { p.URLs = nil }), false},
		"outside":            {with(func(p *messages.TargetPart) { p.URLs = []string{"https://other.example/p"} }), false},
		"wrong chunks":       {with(func(p *messages.TargetPart) { p.ChunkSize, p.Chunks = MinChunk, []string{hexOf(1), hexOf(2)} }), false},
		"chunk":              {with(func(p *messages.TargetPart) { p.ChunkSize, p.Chunks = MinChunk, []string{hexOf(1)} }), true},
		"context":            {target(func(c *messages.TargetCustom) { c.Context = MaxContext }), true},
		"large context":      {target(func(c *messages.TargetCustom) { c.Context = MaxContext + 1 }), false},
		"template":           {target(func(c *messages.TargetCustom) { c.ChatTemplate = strings.Repeat("x", MaxTemplate) }), true},
		"large template":     {target(func(c *messages.TargetCustom) { c.ChatTemplate = strings.Repeat("x", MaxTemplate+1) }), false},
		"binary template":    {target(func(c *messages.TargetCustom) { c.ChatTemplate = "\xff" }), false},
		"unknown default":    {target(func(c *messages.TargetCustom) { c.Sampling = map[string]string{"logit_bias": "1"} }), false},
		"not a number":       {target(func(c *messages.TargetCustom) { c.Sampling = map[string]string{"top_p": "NaN"} }), false},
		"beyond":             {target(func(c *messages.TargetCustom) { c.Sampling = map[string]string{"top_p": "1.01"} }), false},
		"half":               {target(func(c *messages.TargetCustom) { c.Sampling = map[string]string{"top_k": "1.5"} }), false},
		"defaults":           {target(func(c *messages.TargetCustom) { c.Sampling = map[string]string{"top_k": "0", "temperature": "2"} }), true},
	} {
		if _, err := compose(c.custom); (err == nil) != c.good {
			t.Errorf("%s: got %v, want accepted: %t", name, err, c.good)
		}
	}
}

// M13, M17: a model is another one when a file, the order of the files, a role or a setting differs, and the same one when only
// words about it differ. A model of one file without settings keeps the digest of its file.
func TestIdentityOfModel(t *testing.T) {
	seen := map[[32]byte]string{}
	projector, draft := part(2), part(2)
	for name, change := range map[string]func(*messages.TargetCustom){
		"one file":       func(*messages.TargetCustom) {},
		"two parts":      func(c *messages.TargetCustom) { c.Parts = []messages.TargetPart{part(2)} },
		"three parts":    func(c *messages.TargetCustom) { c.Parts = []messages.TargetPart{part(2), part(3)} },
		"other order":    func(c *messages.TargetCustom) { c.Parts = []messages.TargetPart{part(3), part(2)} },
		"projector":      func(c *messages.TargetCustom) { c.Projector = &projector },
		"draft":          func(c *messages.TargetCustom) { c.Draft = &draft },
		"context":        func(c *messages.TargetCustom) { c.Context = 4096 },
		"other context":  func(c *messages.TargetCustom) { c.Context = 2048 },
		"template":       func(c *messages.TargetCustom) { c.ChatTemplate = "x" },
		"sampling":       func(c *messages.TargetCustom) { c.Sampling = map[string]string{"top_p": "1"} },
		"other sampling": func(c *messages.TargetCustom) { c.Sampling = map[string]string{"min_p": "1"} },
	} {
		a, err := compose(target(change))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if other, same := seen[a.SHA256]; same {
			t.Errorf("%s and %s have the same identity, want different ones", name, other)
		}
		seen[a.SHA256] = name
		again, err := compose(target(func(c *messages.TargetCustom) { change(c); c.Default, c.Version = true, "9" }))
		if err != nil || again.SHA256 != a.SHA256 {
			t.Errorf("%s with another version: got another identity, %v, want the same", name, err)
		}
		if len(a.Parts) == 0 && a.SHA256 != model().SHA256 {
			t.Errorf("%s: got another digest, want that of the file", name)
		}
	}
}

// M2, M17: the schema and the code that reads a target give the same verdict about its form. Old targets, as they were written
// before there were parts, go on being read, and an unknown field is refused by both.
func TestSchemaAndCodeAgree(t *testing.T) {
	if published, err := os.ReadFile("../../docs/target.schema.json"); err != nil || string(published) != Schema {
		t.Errorf("got %v, or another docs/target.schema.json, want a copy of adapters/artifact/target.schema.json", err)
	}
	const head = `{"kind":"model","name":"m","version":"1","urls":["https://models.example/v1/m"],"origins":["https://models.example/v1/"]`
	const runtime = `{"kind":"runtime","name":"r","version":"1","urls":["https://models.example/v1/m"],"origins":["https://models.example/v1/"],` +
		`"platform":"linux/amd64","format":"tar.gz","executable":"a"`
	p := func(more string) string {
		return `{"name":"p2.gguf","length":10,"sha256":"` + hexOf(2) + `","urls":["https://models.example/v1/p"],"origins":["https://models.example/v1/"]` + more + `}`
	}
	file := func(more string) string {
		return `,"files":[{"path":"a","sha256":"` + hexOf(3) + `","executable":true` + more + `}]`
	}
	for name, c := range map[string]struct {
		custom string
		good   bool
	}{
		"old model":             {head + `}`, true},
		"old model, spelt out":  {head + `,"default":false,"embedding":false,"chunkSize":0}`, true},
		"old runtime":           {runtime + file(`,"size":4`) + `}`, true},
		"chunks":                {head + `,"chunkSize":65536,"chunks":["` + hexOf(4) + `"]}`, true},
		"small chunks":          {head + `,"chunkSize":1,"chunks":["` + hexOf(4) + `"]}`, false},
		"parts":                 {head + `,"parts":[` + p("") + `]}`, true},
		"no parts":              {head + `,"parts":[]}`, true},
		"part with a surprise":  {head + `,"parts":[` + p(`,"role":"x"`) + `]}`, false},
		"part with chunks":      {head + `,"parts":[` + p(`,"chunkSize":65536,"chunks":["`+hexOf(5)+`"]`) + `]}`, true},
		"projector and draft":   {head + `,"mmproj":` + p("") + `,"draft":` + strings.ReplaceAll(p(""), "p2.gguf", "d.gguf") + `}`, true},
		"settings":              {head + `,"context":4096,"chatTemplate":"{{ x }}","sampling":{"temperature":"0.7","top_k":"20"}}`, true},
		"context as text":       {head + `,"context":"4096"}`, false},
		"half a token":          {head + `,"context":0.5}`, false},
		"negative context":      {head + `,"context":-1}`, false},
		"unknown sampling":      {head + `,"sampling":{"seed":"1"}}`, false},
		"sampling beyond":       {head + `,"sampling":{"temperature":"2.1"}}`, false},
		"half a token of top_k": {head + `,"sampling":{"top_k":"1.5"}}`, false},
		"sampling as a number":  {head + `,"sampling":{"top_p":1}}`, false},
		"sampling as a list":    {head + `,"sampling":[1]}`, false},
		"unknown field":         {head + `,"colour":"red"}`, false},
		"other case":            {head + `,"Parts":[]}`, false},
		"runtime with parts":    {runtime + file("") + `,"parts":[` + p("") + `]}`, false},
		"runtime with context":  {runtime + file("") + `,"context":1}`, false},
		"runtime without files": {runtime + `}`, false},
		"model with files":      {head + `,"executable":"a"` + file("") + `}`, false},
		"capital digest":        {runtime + strings.ReplaceAll(file(""), "0300", "0A00") + `}`, false},
		"other format":          {strings.ReplaceAll(runtime, "tar.gz", "rar") + file("") + `}`, false},
		"other kind":            {strings.ReplaceAll(head, `"model"`, `"adapter"`) + `}`, false},
		"a list":                {`[]`, false},
		"null":                  {`null`, false},
	} {
		schema, code := CheckSchema([]byte(c.custom)), read(c.custom)
		if (schema == nil) != c.good || (code == nil) != c.good {
			t.Errorf("%s: the schema says %v, the code says %v, want accepted by both: %t", name, schema, code, c.good)
		}
	}
}

// read reads custom data as the client does, without the schema.
func read(text string) error {
	var custom messages.TargetCustom
	if err := json.Unmarshal([]byte(text), &custom, json.RejectUnknownMembers(true)); err != nil {
		return err
	}
	files, err := Files(custom.Files)
	if err != nil {
		return err
	}
	chunks, err := Chunks(custom.Chunks)
	if err != nil {
		return err
	}
	a, err := Compose(messages.Artifact{
		Name: custom.Name, Kind: custom.Kind, URLs: custom.URLs, Origins: custom.Origins, SHA256: [32]byte{1}, Size: 10,
		Format: custom.Format, Executable: custom.Executable, Files: files, ChunkSize: custom.ChunkSize, Chunks: chunks,
	}, custom)
	if err != nil {
		return err
	}
	return Check(a)
}

// M17: the limits in the schema are those of the code, and the patterns of the defaults accept the same numbers.
func TestSchemaHasTheLimits(t *testing.T) {
	var schema struct {
		Properties struct {
			Parts        struct{ MaxItems int }
			Context      struct{ Maximum int }
			ChatTemplate struct{ MaxLength int }
			Sampling     struct {
				Properties map[string]struct{ Pattern string }
			}
		}
	}
	if err := json.Unmarshal([]byte(Schema), &schema, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatal(err)
	}
	p := schema.Properties
	if p.Parts.MaxItems != MaxParts-1 || p.Context.Maximum != MaxContext || p.ChatTemplate.MaxLength != MaxTemplate || len(p.Sampling.Properties) != len(Sampling) {
		t.Errorf("got the limits %+v, want those of the code", p)
	}
	var texts []string
	for _, sign := range []string{"", "-", "+"} {
		for _, whole := range []string{"", "0", "00", "01", "1", "2", "3", "9", "10", "11", "999999", "1000000"} {
			for _, fraction := range []string{"", ".", ".0", ".000000", ".0000000", ".01", ".009", ".05", ".1", ".5", ".50", ".999999", ".000001", "e1", " "} {
				texts = append(texts, sign+whole+fraction)
			}
		}
	}
	for name, r := range Sampling {
		pattern := regexp.MustCompile(p.Sampling.Properties[name].Pattern)
		for _, text := range append(texts, "NaN", "Inf", "0x1", "1_0", "1\n") {
			if schema, code := pattern.MatchString(text), r.Has(text); schema != code {
				t.Errorf("%s %q: the schema accepts it: %t, the code: %t, want the same", name, text, schema, code)
			}
		}
	}
}
