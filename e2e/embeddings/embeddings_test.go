//go:build embeddings

package embeddings

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"companion/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// made is where original.py has put its files.
const made = "../../.cache/embeddings"

// expected is a text with its tokens and its vector, as the original model gives them.
type expected struct {
	Text   string
	Tokens []int
	Vector []float64
}

// embedded is an answer of the route.
type embedded struct {
	Data []struct {
		Index     int
		Embedding json.RawMessage
	}
	Usage struct {
		Prompt int `json:"prompt_tokens"`
	}
}

// L5, L6a, L15: the vectors of a real embedding model are those of the original, for texts and for their tokens, as
// floats and as base64. Inputs that the model cannot read are refused: tokens beyond its vocabulary, and texts beyond its
// context. 2,048 inputs are answered in their order, and one more is refused.
func TestEmbeddings(t *testing.T) {
	var all []expected
	text, err := os.ReadFile(filepath.Join(made, "vectors.json"))
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil || len(all) < 10 {
		t.Fatalf("got %d vectors of the original, %v; want 10 or more: run `task test-embeddings`", len(all), err)
	}
	parts, hub := harness.Parts(t), harness.NewHub(t)
	hub.Publish("model", "minilm", filepath.Join(made, "minilm.gguf"), "--version", "1", "--default", "--embedding")
	hub.Publish("runtime", harness.RuntimeName, parts.Runtime.File, "--version", parts.Runtime.Version, "--default")
	c := hub.Companion("")
	c.Extra = []string{"COMPANION_MODEL_CONTEXT=0"}
	c.Start()
	c.SignIn()
	if model := c.Available().Model; model.Context != 512 || model.ContextTrained != 512 {
		t.Fatalf("status: got %+v, want the 512 tokens that the model was trained for", model)
	}
	door := c.Door()
	ask := func(body map[string]any) (answer embedded) {
		t.Helper()
		request, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		reply := door.Do(t.Context(), http.MethodPost, "/embeddings", string(request))
		if err := json.Unmarshal([]byte(reply.Body), &answer); err != nil || reply.Status != http.StatusOK {
			t.Fatalf("%.200s: got %d %.300s, want 200", request, reply.Status, reply.Body)
		}
		return answer
	}
	var texts []string
	for _, want := range all {
		texts = append(texts, want.Text)
		float := ask(map[string]any{"input": want.Text})
		if float.Usage.Prompt != len(want.Tokens) {
			t.Errorf("%.30q: got %d tokens, want %d as the original's", want.Text, float.Usage.Prompt, len(want.Tokens))
		}
		near(t, want, floats(t, float.Data[0].Embedding))
		near(t, want, floats(t, ask(map[string]any{"input": want.Tokens}).Data[0].Embedding))
		near(t, want, floats(t, ask(map[string]any{"input": want.Text, "encoding_format": "base64"}).Data[0].Embedding))
	}
	for i, row := range ask(map[string]any{"input": texts}).Data {
		if row.Index != i {
			t.Errorf("several texts: got index %d in place %d, want the order of the texts", row.Index, i)
		}
		near(t, all[i], floats(t, row.Embedding))
	}

	const most = 2048
	many := slices.Repeat([]string{"x", "A man is eating food."}, most/2)
	rows := ask(map[string]any{"input": many}).Data
	if len(rows) != most {
		t.Fatalf("%d texts: got %d vectors, want as many", most, len(rows))
	}
	for i, row := range rows {
		near(t, all[[]int{slices.Index(texts, "x"), 0}[i%2]], floats(t, row.Embedding))
	}
	for name, refused := range map[string]struct{ input, want string }{
		"beyond the vocabulary":            {`[101,30522,102]`, "`input[1]` must be a whole number from 0 to 30521"},
		"beyond it, in one of several":     {`[[101,102],[101,99999,102]]`, "`input[1][1]` must be a whole number from 0 to 30521"},
		"longer than the context":          {`"` + strings.Repeat("hello ", 600) + `"`, "The prompt has 602 tokens, and the context holds 512."},
		"longer, in one of several":        {`["x","` + strings.Repeat("hello ", 600) + `"]`, "and the context holds 512."},
		"more tokens than the context":     {"[" + strings.TrimSuffix(strings.Repeat("7592,", 513), ",") + "]", "512"},
		"one input more than there may be": {`["x"` + strings.Repeat(`,"x"`, most) + "]", "2048"},
	} {
		reply := door.Do(t.Context(), http.MethodPost, "/embeddings", `{"input":`+refused.input+`}`)
		if reply.Status != http.StatusBadRequest || !strings.Contains(reply.Body, refused.want) {
			t.Errorf("%s: got %d %.300s, want 400 with %q", name, reply.Status, reply.Body, refused.want)
		}
	}
	if status, _ := c.Status(); status.Runtime.Restarts != 0 {
		t.Errorf("afterwards: got %d restarts of the runtime, want none", status.Runtime.Restarts)
	}
	c.Stop()
}

// floats reads a vector: an array, or base64 of 32-bit numbers.
func floats(t *testing.T, raw json.RawMessage) (vector []float64) {
	t.Helper()
	var encoded string
	if json.Unmarshal(raw, &encoded) != nil {
		if err := json.Unmarshal(raw, &vector); err != nil {
			t.Fatalf("got %.100s, want a vector", raw)
		}
		return vector
	}
	data, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(data)%4 != 0 {
		t.Fatalf("got %.100s, %v, want base64 of 32-bit numbers", encoded, err)
	}
	for i := 0; i < len(data); i += 4 {
		vector = append(vector, float64(math.Float32frombits(binary.LittleEndian.Uint32(data[i:]))))
	}
	return vector
}

// near fails unless a vector has the length 1 and the direction of the original's.
func near(t *testing.T, want expected, got []float64) {
	t.Helper()
	var cosine, square float64
	if len(got) != len(want.Vector) {
		t.Fatalf("%.30q: got %d numbers, want %d", want.Text, len(got), len(want.Vector))
	}
	for i := range got {
		cosine += got[i] * want.Vector[i]
		square += got[i] * got[i]
	}
	if math.Abs(square-1) > 1e-4 || cosine < 0.9999 {
		t.Errorf("%s: got the cosine %v and the squared length %v, want 0.9999 or more and 1", fmt.Sprintf("%.30q", want.Text), cosine, square)
	}
}
