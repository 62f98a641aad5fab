package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"companion/adapters/runtime/fileid"
	"companion/adapters/runtime/spawn"
	"companion/e2e/harness"
	"companion/messages"
)

// greedy asks for the most likely tokens. The answer depends on nothing but the model.
func greedy(t testing.TB, c *harness.Companion, more string) string {
	t.Helper()
	r := c.Door().Do(t.Context(), http.MethodPost, "/chat/completions",
		`{"messages":[{"role":"user","content":"Name three planets."}],"temperature":0,"max_tokens":24`+more+`}`)
	var answer realAnswer
	if r.Status != http.StatusOK || json.Unmarshal([]byte(r.Body), &answer) != nil || len(answer.Choices) != 1 {
		t.Fatalf("got %d, %s, %v, want an answer", r.Status, r.Body, r.Err)
	}
	return answer.Choices[0].Message.Content
}

// smolHub offers the real runtime and the instructed model.
func smolHub(t testing.TB) (hub *harness.Hub, model string) {
	t.Helper()
	hub = harness.RealHub(t)
	model = harness.Instructed(t).File
	hub.Publish("model", "smol", model, "--version", "1", "--default")
	return hub, model
}

// M17: a model in three parts is published, downloaded, verified and served by the real runtime. It answers as the model in
// one file does. Parts that are altered, missing, exchanged or replaced by links are noticed at the next start.
func TestSplitModel(t *testing.T) {
	hub, model := smolHub(t)
	parts := harness.Split(t, model, 3)
	hub.Publish("model", "split", parts[0], "--version", "1")
	c := hub.Companion("")
	daemon := c.Start()
	c.SignIn()
	c.Available()
	want := greedy(t, c, "")
	c.Must("use", "split")
	if status := c.Available(); status.Model.Name != "split" {
		t.Fatalf("got the model %s, want split", status.Model.Name)
	}
	if got := greedy(t, c, ""); got != want {
		t.Errorf("got %q from the parts, want the answer of the whole model %q", got, want)
	}
	var total int64
	for _, part := range parts {
		info, err := os.Stat(part)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	for _, row := range models(t, c) {
		if row.Name == "split" && (row.Size != total || !row.Verified) {
			t.Errorf("got %+v, want %d bytes, verified", row, total)
		}
	}
	daemon.Stop()

	files := storedParts(t, c, parts)
	fetched := func() int { return len(hub.ArtifactRequests(harness.ArtifactHost)) }
	for _, fault := range []struct {
		name  string
		spoil func()
	}{
		{"altered", func() { alter(t, files[1]) }},
		{"missing", func() { must(t, os.Remove(files[2])) }},
		{"exchanged", func() {
			spare := files[1] + ".spare"
			must(t, os.Rename(files[1], spare))
			must(t, os.Rename(files[2], files[1]))
			must(t, os.Rename(spare, files[2]))
		}},
		{"a link", func() {
			elsewhere := filepath.Join(harness.TempDir(t), "elsewhere.gguf")
			must(t, os.Rename(files[1], elsewhere))
			must(t, os.Symlink(elsewhere, files[1]))
		}},
	} {
		fault.spoil()
		before := fetched()
		daemon = c.Start()
		if fault.name == "a link" {
			// The store refuses a link, and changes nothing about it: someone put it there.
			c.Await("the refusal of a link", harness.AvailableWithin, func(s messages.Status) bool {
				return !s.CompanionAvailable && strings.Contains(c.Log(), "a symbolic link")
			})
			must(t, os.Remove(files[1]))
			c.Must("pull", "split")
		}
		if status := c.Available(); status.Model.Name != "split" {
			t.Errorf("%s: got the model %s, want split", fault.name, status.Model.Name)
		}
		if got := greedy(t, c, ""); got != want {
			t.Errorf("%s: got %q, want %q", fault.name, got, want)
		}
		if n := fetched() - before; n == 0 {
			t.Errorf("%s: got no request to the artifact host, want the parts that were wrong", fault.name)
		}
		daemon.Stop()
	}
}

// models lists what the manifest offers.
func models(t testing.TB, c *harness.Companion) []messages.ModelRow {
	t.Helper()
	var list struct{ Models []messages.ModelRow }
	if out := c.Must("models", "--json"); json.Unmarshal([]byte(out), &list) != nil {
		t.Fatalf("got %q, want a list of models", out)
	}
	return list.Models
}

// storedParts returns the places of the parts in the store of the companion.
func storedParts(t testing.TB, c *harness.Companion, parts []string) []string {
	t.Helper()
	var files []string
	for _, part := range parts {
		data, err := os.ReadFile(part)
		must(t, err)
		file := filepath.Join(c.Data(), "models", fmt.Sprintf("%x.gguf", sha256.Sum256(data)))
		if _, err := os.Stat(file); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// alter changes one byte in the middle of a stored file, and keeps its mode.
func alter(t testing.TB, file string) {
	t.Helper()
	must(t, os.Chmod(file, 0o600))
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	info, err := f.Stat()
	must(t, err)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, info.Size()/2)
	must(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b, info.Size()/2)
	must(t, err)
	must(t, os.Chmod(file, 0o400))
}

// further returns a file as a further one of a model.
func further(t testing.TB, role messages.PartRole, path string) messages.VerifiedPart {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	id, err := fileid.Of(f)
	must(t, err)
	return messages.VerifiedPart{Role: role, Name: string(role) + ".gguf", Path: path, Identity: id}
}

const planets = `{"messages":[{"role":"user","content":"Name three planets."}],"max_tokens":24%s}`

// M17: confined, both real builds of the runtime read the parts of a split model, a projector and a draft model from descriptors.
// A picture is computed, guesses of the draft model are accepted and change no answer, and the publisher's defaults hold until a
// request says otherwise.
func TestFurtherFiles(t *testing.T) {
	model := harness.Instructed(t).File
	parts := harness.Split(t, model, 3)
	for name, runtime := range map[string]messages.VerifiedRuntime{
		"newest": harness.UnpackRuntime(t), "older": otherRuntime(t),
	} {
		spec := realSpec(t, runtime)
		first := further(t, messages.RoleWeights, parts[0])
		spec.Model.Path, spec.Model.Identity = first.Path, first.Identity
		spec.Model.Parts = []messages.VerifiedPart{
			further(t, messages.RoleWeights, parts[1]), further(t, messages.RoleWeights, parts[2]),
			further(t, messages.RoleProjector, harness.Projector(t, 576)), further(t, messages.RoleDraft, model),
		}
		spec.Model.Settings = messages.ModelSettings{Sampling: map[string]string{"temperature": "0", "top_k": "40", "repeat_penalty": "1"}}
		spec.Features, spec.Speculate = spawn.Features{Draft: true}, true
		ask := startReal(t, spec)
		got, want := ask(fmt.Sprintf(planets, "")), ask(fmt.Sprintf(planets, `,"temperature":0,"top_k":40`))
		if a, b := got.Choices[0].Message.Content, want.Choices[0].Message.Content; a != b || a == "" || got.Timings.Accepted == 0 {
			t.Errorf("%s: got %q with %d guesses accepted, want the most likely tokens %q with some", name, a, got.Timings.Accepted, b)
		}
		hot := ask(fmt.Sprintf(planets, `,"temperature":2,"top_k":0,"top_p":1,"min_p":0,"seed":1`))
		if text := hot.Choices[0].Message.Content; text == want.Choices[0].Message.Content {
			t.Errorf("%s: got the most likely tokens at a temperature of 2, want what the request says", name)
		}
		picture := ask(fmt.Sprintf(`{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,%s"}},`+
			`{"type":"text","text":"What is this?"}]}],"max_tokens":4}`, redSquare(t)))
		if text := picture.Choices[0].Message.Content; text == "" {
			t.Errorf("%s: got no answer about a picture, want any", name)
		}
	}
}

// M17: the chat template of the target is used in place of the model's own.
func TestPublishedTemplate(t *testing.T) {
	spec := realSpec(t, harness.UnpackRuntime(t))
	spec.Model.Settings.ChatTemplate = "The capital of France is"
	got := startReal(t, spec)(fmt.Sprintf(planets, `,"temperature":0`)).Choices[0].Message.Content
	if !strings.Contains(got, "Paris") {
		t.Errorf("got %q, want an answer to the text of the template", got)
	}
}

// redSquare is a small picture.
func redSquare(t testing.TB) string {
	t.Helper()
	square := image.NewRGBA(image.Rect(0, 0, 28, 28))
	draw.Draw(square, square.Bounds(), image.NewUniform(color.RGBA{R: 255, A: 255}), image.Point{}, draw.Src)
	var b bytes.Buffer
	must(t, png.Encode(&b, square))
	return base64.StdEncoding.EncodeToString(b.Bytes())
}
