package harness

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Question requests exactly that many tokens; more is appended to the fields of the body.
func Question(tokens int, more string) string {
	return fmt.Sprintf(`{"messages":[{"role":"user","content":"Tell a story."}],"ignore_eos":true,"max_tokens":%d%s}`, tokens, more)
}

// Reply is the result of a request to the front door: a status, or Err if there was none.
type Reply struct {
	Status int
	Code   string // of the error, if any (L10)
	Body   string
	Err    error
}

// Door sends requests to the front door. It is safe for concurrent use; every request has its own connection.
type Door struct {
	BaseURL, Token string
	// Distinct gives each question a unique text: a test that ends the runtime repeatedly must not have its
	// questions refused for it (R11).
	Distinct bool
	asked    atomic.Int64
	client   http.Client
}

// Door returns a client of the front door with the right token.
func (c *Companion) Door() *Door {
	c.t.Helper()
	baseURL, token := c.Endpoint()
	return NewDoor(baseURL, token)
}

// NewDoor returns a client with any token.
func NewDoor(baseURL, token string) *Door {
	return &Door{BaseURL: baseURL, Token: token, client: http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
}

func (d *Door) send(ctx context.Context, method, path, body string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, d.BaseURL+path, strings.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("making a request: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+d.Token)
	return d.client.Do(request)
}

// question is Question, with a unique text if the door is Distinct.
func (d *Door) question(tokens int, more string) string {
	q := Question(tokens, more)
	if d.Distinct {
		q = strings.Replace(q, "a story", fmt.Sprintf("story %d", d.asked.Add(1)), 1)
	}
	return q
}

// Do sends a request and reads the whole answer.
func (d *Door) Do(ctx context.Context, method, path, body string) Reply {
	response, err := d.send(ctx, method, path, body)
	if err != nil {
		return Reply{Err: err}
	}
	defer response.Body.Close()
	all, err := io.ReadAll(response.Body)
	reply := Reply{Status: response.StatusCode, Body: string(all), Err: err}
	var failure struct{ Error struct{ Code string } }
	if response.StatusCode != http.StatusOK && json.Unmarshal(all, &failure) == nil {
		reply.Code = failure.Error.Code
	}
	return reply
}

// Chat requests tokens and waits for all of them.
func (d *Door) Chat(ctx context.Context, tokens int) Reply {
	return d.Do(ctx, http.MethodPost, "/chat/completions", d.question(tokens, ""))
}

// Stream is a streamed answer in progress.
type Stream struct {
	Ended  chan struct{} // closed at the end; the fields below count from then on
	Status int
	Events int
	Failed bool // the last event is an error (L8)
	Done   bool // the last event is [DONE]
	Err    error
	At     time.Time
}

// Stream requests tokens and returns when the first has arrived or the answer has ended. It reads the answer
// until it or ctx ends.
func (d *Door) Stream(ctx context.Context, tokens int) *Stream {
	s := &Stream{Ended: make(chan struct{})}
	first := make(chan struct{})
	go func() {
		defer close(s.Ended)
		s.read(ctx, d, tokens, first)
		s.At = time.Now()
	}()
	select {
	case <-first:
	case <-s.Ended:
	}
	return s
}

func (s *Stream) read(ctx context.Context, d *Door, tokens int, first chan<- struct{}) {
	response, err := d.send(ctx, http.MethodPost, "/chat/completions", d.question(tokens, `,"stream":true`))
	if err != nil {
		s.Err = err
		return
	}
	defer response.Body.Close()
	s.Status = response.StatusCode
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		data, isData := strings.CutPrefix(lines.Text(), "data: ")
		if !isData {
			continue
		}
		s.Done, s.Failed = data == "[DONE]", strings.HasPrefix(data, `{"error"`)
		// The first event has only the role.
		if s.Events++; s.Events == 2 {
			close(first)
		}
	}
	s.Err = lines.Err()
}

// Whole reports whether the answer ended properly.
func (s *Stream) Whole() bool { return s.Done && !s.Failed && s.Err == nil }

func (s *Stream) String() string {
	return fmt.Sprintf("status %d, %d events, done %v, error event %v, %v", s.Status, s.Events, s.Done, s.Failed, s.Err)
}

// Alive reports whether the process exists and is no zombie.
func Alive(pid int) bool {
	state := stateOf(pid)
	return state != "" && state != "Z"
}

// stateOf is the state letter of proc(5); empty if the process does not exist.
func stateOf(pid int) string {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	state, _, _ := strings.Cut(rest, " ")
	return state
}

// Runtimes lists the processes that were started for this companion's runtime, helper stage and
// llama-server: those whose home is one of its run-time folders.
func (c *Companion) Runtimes() []int {
	c.t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		c.t.Fatal(err)
	}
	var found []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		environment, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		if strings.Contains(string(environment), "HOME="+c.RunTime()) && Alive(pid) {
			found = append(found, pid)
		}
	}
	return found
}

// Files lists the regular files below dir.
func (c *Companion) Files(dir string) []string {
	c.t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return found
}
