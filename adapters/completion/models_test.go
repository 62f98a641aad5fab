package completion

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"companion/messages"
)

// TakesImages is true only if the server reports image input for the requested model.
func TestTakesImages(t *testing.T) {
	const (
		llama = `{"models":[{"name":"m","capabilities":["completion","multimodal"]}],"data":[{"id":"m"}]}`
	)
	for name, row := range map[string]struct {
		models, props string
		status        int
		want, fails   bool
	}{
		"our endpoint":              {models: `{"object":"list","data":[{"id":"m","meta":{"n_ctx":4096}}]}`},
		"modalities without image":  {models: `{"data":[{"id":"other","architecture":{"input_modalities":["text","image"]}},{"id":"m","architecture":{"input_modalities":["text"]}}]}`},
		"modalities with image":     {models: `{"data":[{"id":"m","architecture":{"input_modalities":["text","image"]}}]}`, want: true},
		"vision":                    {models: `{"models":[{"name":"m","capabilities":["completion","vision"]}]}`, want: true},
		"multimodal, vision":        {models: llama, props: `{"modalities":{"vision":true,"audio":false}}`, want: true},
		"multimodal, sound only":    {models: llama, props: `{"modalities":{"vision":false,"audio":true}}`},
		"multimodal, no properties": {models: llama, fails: true},
		"no list":                   {status: http.StatusNotFound, fails: true},
		"no JSON":                   {models: `<html>`, fails: true},
	} {
		base := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Authorization"); got != "Bearer k3y" {
				t.Errorf("%s: got the authorization %q, want the key", name, got)
			}
			body := map[string]string{"/v1/models": row.models, "/props": row.props}[r.URL.Path]
			switch {
			case row.status != 0:
				w.WriteHeader(row.status)
			case body == "":
				w.WriteHeader(http.StatusNotFound)
			default:
				_, _ = io.WriteString(w, body)
			}
		})
		got, err := client(t, Target{BaseURL: base, Model: "m", Key: messages.NewSecret("k3y")}).TakesImages(t.Context())
		if got != row.want || (err != nil) != row.fails {
			t.Errorf("%s: got %v, %v; want %v, an error: %v", name, got, err, row.want, row.fails)
		}
	}
}

// E5: images are parts of the user's message, after its text; a message without them stays a string.
func TestImagesAreParts(t *testing.T) {
	var got struct {
		Messages []struct{ Content json.RawMessage }
	}
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		stream(w, delta("a", ""), delta("", "stop"), "[DONE]")
	})
	turns := []Message{{Role: "user", Content: "first"}, {Role: "user", Content: "what is it?", Images: []string{"data:image/png;base64,AA=="}}}
	if _, err := client(t, Target{BaseURL: base}).Chat(t.Context(), turns, Options{}, func(string) error { return nil }); err != nil {
		t.Fatal(err)
	}
	want := `[{"text":"what is it?","type":"text"},{"image_url":{"url":"data:image/png;base64,AA=="},"type":"image_url"}]`
	if len(got.Messages) != 2 || string(got.Messages[0].Content) != `"first"` || string(got.Messages[1].Content) != want {
		t.Errorf("got %s, want \"first\" and %s", got.Messages, want)
	}
}
