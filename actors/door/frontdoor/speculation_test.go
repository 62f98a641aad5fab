package frontdoor

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"companion/messages"
)

// speculating sets the snapshot to a runtime with speculative decoding.
func (r *rig) speculating() {
	s := r.snapshot.Get()
	s.Speculates = true
	r.snapshot.Set(s)
}

// post returns the status of a request, after its whole answer.
func (r *rig) post(path, body string) int {
	request, err := http.NewRequest(http.MethodPost, "http://"+r.address+path, strings.NewReader(body))
	if err != nil {
		return 0
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(request)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	_ = answer.Body.Close()
	return answer.StatusCode
}

// unfit waits for the message to the lifecycle actor.
func (r *rig) unfit() (messages.SpeculationUnfit, bool) {
	for {
		select {
		case m := <-r.told:
			if u, ok := m.(messages.SpeculationUnfit); ok {
				return u, true
			}
		case <-time.After(5 * time.Second):
			return messages.SpeculationUnfit{}, false
		}
	}
}

// R12: a request for probabilities waits until a runtime without speculative decoding has replaced one with it.
func TestProbabilitiesNeedARuntimeWithoutGuesses(t *testing.T) {
	r := start(t, llama(t), nil)
	r.speculating()
	body := `{"messages":[{"role":"user","content":"hi"}],"logprobs":true}`
	answered := make(chan int, 1)
	go func() { answered <- r.post("/v1/chat/completions", body) }()
	got, told := r.unfit()
	if !told || got.Launch != 1 || got.Why == "" {
		t.Fatalf("lifecycle got %+v, %v; want SpeculationUnfit of launch 1", got, told)
	}
	// The lifecycle actor may restart and lose the message.
	if again, told := r.unfit(); !told || again != got {
		t.Fatalf("a second later: lifecycle got %+v, %v; want %+v again", again, told, got)
	}
	select {
	case status := <-answered:
		t.Fatalf("got the answer %d from a runtime with speculative decoding, want it to wait", status)
	default:
	}
	s := r.snapshot.Get()
	s.State, s.Speculates = messages.StateStarting, false
	r.snapshot.Set(s)
	select {
	case status := <-answered:
		t.Fatalf("got the answer %d while the runtime starts, want it to wait", status)
	case <-time.After(50 * time.Millisecond):
	}
	s.State, s.Launch = messages.StateReady, 2
	r.snapshot.Set(s)
	if status := <-answered; status != http.StatusOK {
		t.Errorf("got status %d, want 200", status)
	}
}

// R12: the wait for such a runtime is bounded as that in the queue.
func TestProbabilitiesWaitIsBounded(t *testing.T) {
	r := start(t, llama(t), func(d *Deps) { d.Bounds.QueueTimeout = 50 * time.Millisecond })
	r.speculating()
	if status := r.post("/v1/completions", `{"prompt":"hi","logprobs":1}`); status != http.StatusServiceUnavailable {
		t.Errorf("got status %d, want 503", status)
	}
}

// R12: the lifecycle actor is told when drafts make the answers slower.
func TestGuessesThatLose(t *testing.T) {
	for name, tt := range map[string]struct {
		stream bool
		cost   float64 // of a draft token, in steps
		want   bool
	}{
		"expensive":         {false, 1, true},
		"expensive, stream": {true, 1, true},
		"cheap":             {false, 0.01, false},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			r := start(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				n++
				drafted := n % 7 * 10
				millis := 10 * (100 + tt.cost*float64(drafted))
				timings := fmt.Sprintf(`"timings":{"prompt_n":1,"predicted_n":100,"predicted_ms":%.3f,"draft_n":%d,"draft_n_accepted":%d}`, millis, drafted, drafted/10)
				if tt.stream {
					w.Header().Set("Content-Type", "text/event-stream")
					fmt.Fprintf(w, "data: {\"choices\":[],%s}\n\ndata: [DONE]\n\n", timings)
					return
				}
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprintf(w, `{"choices":[],%s}`, timings)
			}), func(d *Deps) { d.Bounds.RatePerMinute = 10_000 })
			r.speculating()
			body := `{"messages":[{"role":"user","content":"hi"}]}`
			if tt.stream {
				body = strings.Replace(body, "{", `{"stream":true,`, 1)
			}
			for range 60 {
				if status := r.post("/v1/chat/completions", body); status != http.StatusOK {
					t.Fatalf("got status %d, want 200", status)
				}
			}
			told := false
			for len(r.told) > 0 {
				if u, ok := (<-r.told).(messages.SpeculationUnfit); ok {
					told = told || u.Launch == 1
				}
			}
			if told != tt.want {
				t.Errorf("lifecycle told: got %v, want %v", told, tt.want)
			}
		})
	}
}
