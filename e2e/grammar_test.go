package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"companion/e2e/harness"
)

// grammarRig is a companion with the real runtime.
type grammarRig struct {
	*testing.T
	companion      *harness.Companion
	baseURL, token string
	runtimes       []int
	random         *rand.Rand
}

// spent is what passes until a first token. Processor time is the runtime's own: it hardly depends on what else
// the machine does.
type spent struct{ wall, processor time.Duration }

func (s spent) String() string {
	return fmt.Sprintf("%v (%v of the runtime's processor time)", s.wall.Round(time.Millisecond), s.processor)
}

// processor returns the processor time of the runtime so far.
func (r *grammarRig) processor() (sum time.Duration) {
	for _, pid := range r.runtimes {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it ended, which the caller finds
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		for _, ticks := range fields[11:13] { // utime and stime
			n, err := strconv.Atoi(ticks)
			if err != nil {
				r.Error(err)
			}
			sum += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return sum
}

// answerStart is how an answer began.
type answerStart struct {
	spent  spent
	status int
	text   string // the content, or the body of an error
	failed bool   // the stream held an error
	whole  bool   // the answer ended before its token bound
}

// ask streams an answer.
func (r *grammarRig) ask(body string) (a answerStart) {
	began, before := time.Now(), r.processor()
	request, err := http.NewRequestWithContext(r.Context(), http.MethodPost, r.baseURL+chatPath, strings.NewReader(body))
	if err != nil {
		r.Error(err)
		return a
	}
	request.Header.Set("Authorization", "Bearer "+r.token)
	request.Header.Set("Content-Type", "application/json")
	reply, err := http.DefaultClient.Do(request)
	if err != nil {
		r.Error(err)
		return a
	}
	defer reply.Body.Close()
	if a.status = reply.StatusCode; a.status != http.StatusOK {
		content, _ := io.ReadAll(reply.Body)
		a.text = string(content)
		return a
	}
	for lines := bufio.NewScanner(reply.Body); lines.Scan(); {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok || data == "[DONE]" {
			continue
		}
		var event struct {
			Error   json.RawMessage
			Choices []struct {
				FinishReason *string `json:"finish_reason"`
				Delta        struct{ Content *string }
			}
		}
		if err := json.Unmarshal([]byte(data), &event); err != nil || event.Error != nil || len(event.Choices) == 0 {
			a.text, a.failed = data, true
			break
		}
		choice := event.Choices[0]
		if choice.FinishReason == nil && a.spent.wall == 0 { // the runtime's first event comes with its first token
			a.spent = spent{time.Since(began), r.processor() - before}
		}
		if choice.Delta.Content != nil {
			a.text += *choice.Delta.Content
		}
		if choice.FinishReason != nil {
			a.whole = *choice.FinishReason == "stop"
		}
	}
	return a
}

const (
	// calibrationTime is how long TestGrammarCalibration tries schemas; GRAMMAR_TIME sets another.
	calibrationTime = 75 * time.Second
	// firstTokenBound is for the first token of any accepted request, and of one that runs at the same time.
	firstTokenBound = 2 * time.Second
)

// busy reports whether more processes want to run than this machine has processors. This test keeps two busy.
func busy(t *testing.T) bool {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text)) // 0.20 0.18 0.12 1/80 11206
	running, _, _ := strings.Cut(fields[3], "/")
	load, err := strconv.ParseFloat(fields[0], 64)
	now, wrong := strconv.Atoi(running)
	if err := errors.Join(err, wrong); err != nil {
		t.Fatal(err)
	}
	return max(load, float64(now)) > float64(runtime.NumCPU())+1
}

// L6a, T16: whatever schema is accepted, the real runtime survives it, answers in its sense, and spends at most
// 2 s on the first token; a request at the same time waits no longer. The schemas lie at the edge of what is
// accepted. GRAMMAR_SEED repeats a run, GRAMMAR_FAMILY chooses kinds of schemas. The runtime's processor time is
// bounded always, and the wall clock while the machine does nothing else.
func TestGrammarCalibration(t *testing.T) {
	r := &grammarRig{T: t, companion: harness.Ready(t, "")}
	r.baseURL, r.token = r.companion.Endpoint()
	r.runtimes = r.companion.Runtimes()
	seed, limit := uint64(time.Now().UnixNano()), calibrationTime
	if text := os.Getenv("GRAMMAR_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	if text := os.Getenv("GRAMMAR_TIME"); text != "" {
		limit, _ = time.ParseDuration(text)
	}
	t.Logf("GRAMMAR_SEED=%d", seed)
	r.random = rand.New(rand.NewPCG(seed, 1))
	g := grammarMaker{r.random}
	names := slices.Sorted(maps.Keys(families))
	if only := os.Getenv("GRAMMAR_FAMILY"); only != "" {
		names = strings.Split(only, ",")
	}
	r.ask(honestRequest)
	worst := map[string]spent{}
	tried := 0
	for began := time.Now(); time.Since(began) < limit; {
		g.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		for _, name := range names {
			if time.Since(began) > limit {
				break
			}
			if schema, found := g.edge(families[name]); found {
				tried++
				took := r.try(name, schema)
				worst[name] = spent{max(worst[name].wall, took.wall), max(worst[name].processor, took.processor)}
			}
		}
	}
	t.Logf("%d schemas", tried)
	if tried == 0 {
		t.Error("got no schema tried, want some")
	}
	for _, name := range slices.Sorted(maps.Keys(worst)) {
		t.Logf("%-30s %v", name, worst[name])
	}
}

const honestRequest = `{"messages":[{"role":"user","content":"Hello."}],"max_tokens":2,"stream":true}`

// try sends a schema and, at the same time, an honest request. It returns the longer wait.
func (r *grammarRig) try(name string, schema any) spent {
	body := grammarRequest(schema, 3+r.random.IntN(20))
	honest, later := make(chan answerStart, 1), time.Duration(10+r.random.IntN(300))*time.Millisecond
	go func() {
		time.Sleep(later) // so that it comes while the other is answered
		honest <- r.ask(honestRequest)
	}()
	attack := r.ask(body)
	other := <-honest
	shown := body[:min(len(body), 700)]
	if attack.status != http.StatusOK || attack.failed {
		r.Errorf("%s: got %d %.300s, want 200 to %s", name, attack.status, attack.text, shown)
	}
	if err := fits(schema, attack.text, attack.whole); err != nil {
		r.Errorf("%s: %v: %s", name, err, shown)
	}
	for who, took := range map[string]spent{"its": attack.spent, "another request's": other.spent} {
		if took.processor > firstTokenBound || took.wall > firstTokenBound && !busy(r.T) {
			r.Errorf("%s: %s first token came after %v, want at most %v: %s", name, who, took, firstTokenBound, shown)
		}
	}
	if now := r.companion.Runtimes(); !slices.Equal(now, r.runtimes) {
		r.Fatalf("%s: got runtime process %v, want %v still, after %s", name, now, r.runtimes, shown)
	}
	return spent{max(attack.spent.wall, other.spent.wall), max(attack.spent.processor, other.spent.processor)}
}

// fits checks a whole answer against the pattern of its schema, as Go's regexp reads it.
func fits(schema any, text string, whole bool) error {
	if !whole {
		return nil
	}
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		return fmt.Errorf("answer %q is not JSON: %w", text, err)
	}
	pattern, ok := schema.(object)["pattern"].(string)
	if !ok {
		return nil
	}
	s, ok := value.(string)
	compiled, err := regexp.Compile(`^(?:` + pattern[1:len(pattern)-1] + `)$`)
	if err != nil { // Go limits a repetition to 1000; FuzzPattern compares the meaning of patterns
		compiled = regexp.MustCompile(``)
	}
	if !ok || !compiled.MatchString(s) {
		return fmt.Errorf("answer %q does not match %s", text, pattern)
	}
	return nil
}
