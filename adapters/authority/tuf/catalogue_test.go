package tuf

import (
	"io"
	"log"
	"net/http"
	"strings"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"companion/adapters/authority/tuf/tuftest"
	"companion/messages"
)

var quiet = log.New(io.Discard, "", 0)

func status(code int) func(http.ResponseWriter, string) bool {
	return func(w http.ResponseWriter, _ string) bool { w.WriteHeader(code); return true }
}

func elsewhere(w http.ResponseWriter, name string) bool {
	w.Header().Set("Location", "https://evil.example/"+name)
	w.WriteHeader(http.StatusFound)
	return true
}

func cut(http.ResponseWriter, string) bool { panic(http.ErrAbortHandler) }

// M2, M4, M12, T6: invalid content of a validly signed target is refused.
func TestTargets(t *testing.T) {
	f := newFixture(t)
	host := strings.TrimPrefix(f.server.URL, "https://")
	name := host[:strings.LastIndex(host, ":")]
	model := func(change func(*messages.TargetCustom)) any {
		c := tuftest.Model("m")
		change(&c)
		return c
	}
	runtime := func(change func(*messages.TargetCustom)) any {
		c := tuftest.Runtime("m", "linux/amd64")
		change(&c)
		return c
	}
	sources := func(url, origin string) any {
		return model(func(c *messages.TargetCustom) { c.URLs, c.Origins = []string{url}, []string{origin} })
	}
	chunked := func(size int64, n int) any {
		return model(func(c *messages.TargetCustom) {
			c.ChunkSize = size
			for range n {
				c.Chunks = append(c.Chunks, strings.Repeat("ab", 32))
			}
		})
	}
	parts := func(change func(*messages.TargetPart)) any {
		return model(func(c *messages.TargetCustom) {
			p := messages.TargetPart{Name: "p", Length: 1, SHA256: strings.Repeat("ef", 32), URLs: []string{"https://models.example/v1/p"}, Origins: []string{"https://models.example/v1/"}}
			change(&p)
			c.Parts = []messages.TargetPart{p}
		})
	}
	file := func(change func(*messages.TargetFile)) any {
		return runtime(func(c *messages.TargetCustom) { change(&c.Files[0]) })
	}
	link := func(link string) any {
		return runtime(func(c *messages.TargetCustom) {
			digest := strings.Repeat("cd", 32)
			c.Files = append(c.Files, messages.TargetFile{Path: "bin/l.so", Link: link},
				messages.TargetFile{Path: "bin/libllama.so.1", SHA256: digest}, messages.TargetFile{Path: "lib/libllama.so", SHA256: digest})
		})
	}
	const model4, runtime4 = "model/m", "runtime/linux/amd64/m"
	rows := map[string]struct {
		custom any
		path   string
		want   messages.Reason
	}{
		"good model":              {model(func(*messages.TargetCustom) {}), model4, messages.ReasonOK},
		"good embedding":          {model(func(c *messages.TargetCustom) { c.Embedding = true }), model4, messages.ReasonOK},
		"good runtime":            {runtime(func(*messages.TargetCustom) {}), runtime4, messages.ReasonOK},
		"good link":               {link("libllama.so.1"), runtime4, messages.ReasonOK},
		"good link upwards":       {link("../lib/libllama.so"), runtime4, messages.ReasonOK},
		"http":                    {sources("http://models.example/a", "http://models.example/"), model4, messages.ReasonSchemeNotAllowed},
		"outside the origin":      {sources("https://models.example/v2/a", "https://models.example/v1/"), model4, messages.ReasonSourceNotAllowed},
		"prefix of a host":        {sources("https://models.example.evil.net/a", "https://models.example"), model4, messages.ReasonSourceNotAllowed},
		"userinfo":                {sources("https://models.example@evil.net/a", "https://models.example/"), model4, messages.ReasonMalformedSpec},
		"from the manifest host":  {sources(f.server.URL+"/a", f.server.URL+"/"), model4, messages.ReasonSourceNotAllowed},
		"manifest host, own port": {sources("https://"+name+":1/a", "https://"+name+":1/"), model4, messages.ReasonSourceNotAllowed},
		"manifest host, dotted":   {sources("https://"+name+".:1/a", "https://"+name+".:1/"), model4, messages.ReasonSourceNotAllowed},
		"manifest host as origin": {model(func(c *messages.TargetCustom) { c.Origins = append(c.Origins, f.server.URL) }), model4, messages.ReasonSourceNotAllowed},
		"no url":                  {model(func(c *messages.TargetCustom) { c.URLs = nil }), model4, messages.ReasonMalformedSpec},
		"no origin":               {model(func(c *messages.TargetCustom) { c.Origins = nil }), model4, messages.ReasonMalformedSpec},
		"other name":              {model(func(c *messages.TargetCustom) { c.Name = "n" }), model4, messages.ReasonMalformedSpec},
		"other kind":              {model(func(c *messages.TargetCustom) { c.Kind = "runtime" }), model4, messages.ReasonMalformedSpec},
		"no version":              {model(func(c *messages.TargetCustom) { c.Version = "" }), model4, messages.ReasonMalformedSpec},
		"odd version":             {model(func(c *messages.TargetCustom) { c.Version = "../1" }), model4, messages.ReasonMalformedSpec},
		"model with a platform":   {model(func(c *messages.TargetCustom) { c.Platform = "linux/amd64" }), model4, messages.ReasonMalformedSpec},
		"model with files":        {model(func(c *messages.TargetCustom) { c.Files = []messages.TargetFile{}; c.Executable = "x" }), model4, messages.ReasonMalformedSpec},
		"chunks":                  {chunked(600, 2), model4, messages.ReasonMalformedSpec},
		"chunks of no size":       {chunked(0, 1), model4, messages.ReasonMalformedSpec},
		"good chunk":              {chunked(64<<10, 1), model4, messages.ReasonOK},
		"chunk too many":          {chunked(64<<10, 2), model4, messages.ReasonMalformedSpec},
		"good parts":              {parts(func(*messages.TargetPart) {}), model4, messages.ReasonOK},
		"part from the hub": {parts(func(p *messages.TargetPart) {
			p.URLs, p.Origins = []string{f.server.URL + "/a"}, []string{f.server.URL + "/"}
		}), model4, messages.ReasonSourceNotAllowed},
		"part by http":            {parts(func(p *messages.TargetPart) { p.URLs = []string{"http://models.example/v1/p"} }), model4, messages.ReasonSchemeNotAllowed},
		"part outside the origin": {parts(func(p *messages.TargetPart) { p.URLs = []string{"https://models.example/v2/p"} }), model4, messages.ReasonSourceNotAllowed},
		"part without a URL":      {parts(func(p *messages.TargetPart) { p.URLs = nil }), model4, messages.ReasonMalformedSpec},
		"part with a path":        {parts(func(p *messages.TargetPart) { p.Name = "../p" }), model4, messages.ReasonMalformedSpec},
		"settings":                {model(func(c *messages.TargetCustom) { c.Context, c.Sampling = 4096, map[string]string{"top_p": "0.9"} }), model4, messages.ReasonOK},
		"settings beyond":         {model(func(c *messages.TargetCustom) { c.Sampling = map[string]string{"top_p": "2"} }), model4, messages.ReasonMalformedSpec},
		"runtime with a context":  {runtime(func(c *messages.TargetCustom) { c.Context = 4096 }), runtime4, messages.ReasonMalformedSpec},
		"unknown key":             {map[string]any{"kind": "model", "name": "m", "version": "1", "sha256": "x"}, model4, messages.ReasonMalformedSpec},
		"not an object":           {"model", model4, messages.ReasonMalformedSpec},
		"other platform":          {runtime(func(c *messages.TargetCustom) { c.Platform = "linux/arm64" }), runtime4, messages.ReasonMalformedSpec},
		"other format":            {runtime(func(c *messages.TargetCustom) { c.Format = "tar" }), runtime4, messages.ReasonMalformedSpec},
		"no files":                {runtime(func(c *messages.TargetCustom) { c.Files = nil }), runtime4, messages.ReasonMalformedSpec},
		"executable not listed":   {runtime(func(c *messages.TargetCustom) { c.Executable = "bin/other" }), runtime4, messages.ReasonMalformedSpec},
		"executable without bit":  {file(func(f *messages.TargetFile) { f.Executable = false }), runtime4, messages.ReasonMalformedSpec},
		"no digest":               {file(func(f *messages.TargetFile) { f.SHA256 = "" }), runtime4, messages.ReasonMalformedSpec},
		"digest in capitals":      {file(func(f *messages.TargetFile) { f.SHA256 = strings.Repeat("AB", 32) }), runtime4, messages.ReasonMalformedSpec},
		"negative size":           {file(func(f *messages.TargetFile) { f.Size = -1 }), runtime4, messages.ReasonMalformedSpec},
		"absolute path":           {file(func(f *messages.TargetFile) { f.Path = "/bin/x" }), runtime4, messages.ReasonMalformedSpec},
		"dot segment":             {file(func(f *messages.TargetFile) { f.Path = "../x" }), runtime4, messages.ReasonMalformedSpec},
		"unclean path":            {file(func(f *messages.TargetFile) { f.Path = "a/../x" }), runtime4, messages.ReasonMalformedSpec},
		"backslash":               {file(func(f *messages.TargetFile) { f.Path = `..\x` }), runtime4, messages.ReasonMalformedSpec},
		"listed twice":            {runtime(func(c *messages.TargetCustom) { c.Files = append(c.Files, c.Files[0]) }), runtime4, messages.ReasonMalformedSpec},
		"link out":                {link("../../x"), runtime4, messages.ReasonMalformedSpec},
		"absolute link":           {link("/etc/passwd"), runtime4, messages.ReasonMalformedSpec},
		"link to the folder":      {link(".."), runtime4, messages.ReasonMalformedSpec},
	}
	c := f.client(t)
	for rowName, r := range rows {
		t.Run(rowName, func(t *testing.T) {
			f.Targets.Signed.Targets = map[string]*metadata.TargetFiles{}
			f.Add(tuftest.Model("other"))
			f.Add(r.custom, r.path)
			f.Publish()
			cat, err := c.Refresh(t.Context(), messages.Secret{})
			if err != nil {
				t.Fatal(err)
			}
			find := cat.Model
			if r.path == runtime4 {
				find = cat.Runtime
			}
			a, reason := find("m")
			if reason != r.want || (a.Name == "m") != (r.want == messages.ReasonOK) {
				t.Fatalf("got %s, want %s", reason, r.want)
			}
			if _, reason := cat.Model("other"); reason != messages.ReasonOK {
				t.Fatalf("the other target: got %s, want ok", reason)
			}
		})
	}
}

// M2: the choice of a target by name or default.
func TestFind(t *testing.T) {
	f := newFixture(t)
	refresh := func() Catalogue {
		t.Helper()
		f.Publish()
		return f.refresh(t, messages.ReasonOK)
	}
	want := func(c Catalogue, name string, model string, reason messages.Reason) {
		t.Helper()
		if a, got := c.Model(name); a.Name != model || got != reason {
			t.Fatalf("%q: got %q %s, want %q %s", name, a.Name, got, model, reason)
		}
	}
	want(refresh(), "", "", messages.ReasonNoSuchTarget)
	f.Add(tuftest.Model("a"))
	want(refresh(), "", "a", messages.ReasonOK)
	f.Add(tuftest.Model("b"))
	want(refresh(), "", "", messages.ReasonNoSuchTarget)
	main := tuftest.Model("c")
	main.Default = true
	f.Add(main)
	cat := refresh()
	want(cat, "", "c", messages.ReasonOK)
	want(cat, "b", "b", messages.ReasonOK)
	want(cat, "d", "", messages.ReasonNoSuchTarget)
	if models, name := cat.Models(); len(models) != 3 || name != "c" {
		t.Fatalf("got models %v, default %s; want 3, c", models, name)
	}
	main.Name = "d"
	f.Add(main)
	want(refresh(), "", "", messages.ReasonMalformedSpec)
	if _, reason := cat.Runtime(""); reason != messages.ReasonNoSuchTarget {
		t.Fatalf("got %v, want %v", reason, messages.ReasonNoSuchTarget)
	}
}

func TestSameHost(t *testing.T) {
	for _, r := range []struct {
		a, b string
		want bool
	}{
		{"hub.example", "hub.example", true}, {"HUB.example", "hub.example.", true},
		{"hub.example", "models.example", false}, {"hub.example", "hub.example.net", false},
	} {
		if sameHost(r.a, r.b) != r.want {
			t.Errorf("sameHost(%s, %s): got %t, want %t", r.a, r.b, !r.want, r.want)
		}
	}
}
