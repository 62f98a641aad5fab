package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"companion/adapters/completion"
	"companion/adapters/completion/enrich"
	"companion/adapters/completion/lane"
	"companion/adapters/door/openai"
	"companion/messages"
)

// checkedAsker answers what our endpoint would let through.
type checkedAsker struct {
	t   *testing.T
	tag string
}

func (c checkedAsker) Ask(_ context.Context, turns []completion.Message, o completion.Options, _ time.Duration) (completion.Answer, error) {
	content := make([]map[string]string, 0, len(turns))
	for _, turn := range turns {
		content = append(content, map[string]string{"role": turn.Role, "content": turn.Content})
	}
	body, err := json.Marshal(map[string]any{"messages": content, "response_format": map[string]any{
		"type": "json_schema", "json_schema": map[string]any{"name": o.SchemaName, "schema": o.Schema, "strict": true},
	}})
	if err != nil {
		c.t.Fatal(err)
	}
	serving := openai.Serving{Model: messages.Model{Name: "m", Context: 8192}, Slots: 2}
	if _, _, bad := openai.Check(openai.Chat, body, serving, nil); bad != nil {
		return completion.Answer{}, &completion.Error{Status: 400, Message: bad.Error()}
	}
	return completion.Answer{Text: fmt.Sprintf(`{"summary":"A note.","tags":[%q],"open_questions":[]}`, c.tag)}, nil
}

// E8, L6b: the request with the largest vocabulary that --tags-from makes is one that our endpoint accepts.
func TestLargestVocabulary(t *testing.T) {
	for name, tag := range map[string]string{"distinct": "%c%03d", "alike": "project-tag-%[2]d"} {
		list := filepath.Join(t.TempDir(), "tags.txt")
		file, err := os.Create(list)
		if err != nil {
			t.Fatal(err)
		}
		out := bufio.NewWriter(file)
		for i := range 300 {
			fmt.Fprintf(out, tag+"\n", rune('a'+i%26), i)
		}
		if err := out.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		tags, left, err := enrich.ReadVocabulary(t.Context(), list)
		if err != nil || len(tags) < 64 || len(tags)+left != 300 {
			t.Fatalf("%s: got %d tags, %d left, %v, want at least 64 and all counted", name, len(tags), left, err)
		}
		e := &enrich.Enricher{
			Asker: checkedAsker{t, tags[0]}, GeneratedBy: "companion test", Lane: lane.Local, Context: 8192, Patience: time.Second, Now: time.Now, Vocabulary: tags,
			Served: func(context.Context) (enrich.Served, error) { return enrich.Served{Model: "m", Version: "1"}, nil },
		}
		note, err := enrich.ParseNote("n.md", []byte("Buy milk and bread tomorrow."))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Note(t.Context(), note); err != nil {
			t.Errorf("%s: got %v, want a result", name, err)
		}
	}
}
