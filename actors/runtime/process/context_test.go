package process

import (
	"testing"

	"companion/messages"
)

// L15: the context is what the model was trained for, bounded by the configuration and by a share of the free memory;
// never more than it was trained for. An embedding model has a smaller default.
func TestContextOf(t *testing.T) {
	const (
		trained    = messages.ContextTrained
		byMemory   = messages.ContextMemory
		configured = messages.ContextConfigured
		unknown    = messages.ContextDefault
	)
	for name, c := range map[string]struct {
		asked, trained int
		embedding      bool
		room           memory
		tokens         int
		by             messages.ContextBound
	}{
		"as trained":                  {0, 32768, false, memory{1 << 40, 1000}, 32768, trained},
		"memory not known":            {0, 32768, false, memory{0, 1000}, 32768, trained},
		"size not known":              {0, 32768, false, memory{1 << 20, 0}, 32768, trained},
		"header says nothing":         {0, 0, false, memory{1 << 40, 1000}, 4096, unknown},
		"a quarter of the memory":     {0, 131072, false, memory{4 * 10240 * 1000, 1000}, 10240, byMemory},
		"in steps":                    {0, 131072, false, memory{4 * 10239 * 1000, 1000}, 9984, byMemory},
		"just enough":                 {0, 8192, false, memory{4 * 8192 * 1000, 1000}, 8192, trained},
		"little memory":               {0, 131072, false, memory{1, 1000}, 4096, byMemory},
		"little memory, small model":  {0, 2048, false, memory{1, 1000}, 2048, trained},
		"configured":                  {8192, 32768, false, memory{1 << 40, 1000}, 8192, configured},
		"configured, header silent":   {8192, 0, false, memory{1 << 40, 1000}, 8192, configured},
		"configured, more than it":    {999999, 32768, false, memory{1 << 40, 1000}, 32768, trained},
		"configured, all the memory":  {20000, 32768, false, memory{10240 * 1000, 1000}, 10240, byMemory},
		"configured, fits the memory": {10240, 32768, false, memory{10240 * 1000, 1000}, 10240, configured},
		"configured, small":           {512, 32768, false, memory{1, 1000}, 512, configured},
		"embeddings":                  {0, 32768, true, memory{1 << 40, 1000}, 4096, unknown},
		"embeddings, small model":     {0, 512, true, memory{1 << 40, 1000}, 512, trained},
		"embeddings, configured":      {16384, 32768, true, memory{1 << 40, 1000}, 16384, configured},
	} {
		if tokens, by := contextOf(wish{configured: c.asked}, c.trained, c.embedding, c.room); tokens != c.tokens || by != c.by {
			t.Errorf("%s: got %d by %s, want %d by %s", name, tokens, by, c.tokens, c.by)
		}
	}
}

// M17: the context of the target holds where model.context is not set. It is no more than what the model was trained for and the
// memory allows.
func TestPublishedContext(t *testing.T) {
	for name, c := range map[string]struct {
		wish      wish
		trained   int
		embedding bool
		room      memory
		want      int
		by        messages.ContextBound
	}{
		"published":            {wish{0, 8192}, 32768, false, memory{}, 8192, messages.ContextPublished},
		"not known otherwise":  {wish{0, 8192}, 0, false, memory{}, 8192, messages.ContextPublished},
		"more than trained":    {wish{0, 65536}, 32768, false, memory{}, 32768, messages.ContextTrained},
		"configured wins":      {wish{2048, 8192}, 32768, false, memory{}, 2048, messages.ContextConfigured},
		"configured is larger": {wish{16384, 8192}, 32768, false, memory{}, 16384, messages.ContextConfigured},
		"memory":               {wish{0, 32768}, 32768, false, memory{free: 8192 * 4, tokenBytes: 1}, 8192, messages.ContextMemory},
		"embedding":            {wish{0, 8192}, 32768, true, memory{}, 8192, messages.ContextPublished},
	} {
		if got, by := contextOf(c.wish, c.trained, c.embedding, c.room); got != c.want || by != c.by {
			t.Errorf("%s: got %d, %s, want %d, %s", name, got, by, c.want, c.by)
		}
	}
}
