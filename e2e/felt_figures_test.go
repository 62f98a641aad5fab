package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"companion/adapters/runtime/spawn"
	"companion/e2e/harness"
	"companion/messages"
)

// The benchmarks whose names begin with Felt measure inference as a user sees it, with the real runtime and the
// instruction-tuned model: `task bench-felt`. Each alternates between the companion and the bare llama-server with
// its own defaults, and prints the minimum, median and maximum of both, and the ratio of the medians. -benchtime 10x
// makes ten rounds.

const feltCode = `def load_users(path):
    users = []
    with open(path) as f:
        for line in f:
            name, age, city = line.strip().split(",")
            users.append({"name": name, "age": int(age), "city": city})
    return users

def average_age(users):
    total = 0
    for user in users:
        total += user["age"]
    return total / len(users)

def by_city(users):
    groups = {}
    for user in users:
        groups.setdefault(user["city"], []).append(user)
    return groups
`

const feltNote = noteText + ` We agreed to ask the builder for a written plan until Friday. The budget for the second ` +
	`phase is still open, because the bank has not confirmed the loan. Maria will call the bank on Thursday.`

const feltSchema = `{"type":"json_schema","json_schema":{"name":"r","schema":{"type":"object","properties":{` +
	`"summary":{"type":"string","maxLength":200},"tags":{"type":"array","items":{"type":"string","maxLength":20},"maxItems":5}},` +
	`"required":["summary","tags"]}}}`

// feltChat is the body of a greedy chat request. more is appended to its fields.
func feltChat(tokens int, content, more string) string {
	text, _ := json.Marshal(content)
	return fmt.Sprintf(`{"messages":[{"role":"user","content":%s}],"temperature":0,"max_tokens":%d%s}`, text, tokens, more)
}

// feltWorkloads are the workloads by name: the ones that repeat their prompt come last.
var feltWorkloads = []struct{ name, body string }{
	{"chat", feltChat(120, "What are three good reasons to learn to cook at home?", "")},
	{"summary", feltChat(80, "Summarize in two sentences:\n\n"+feltNote, "")},
	{"json", feltChat(100, "Describe this note:\n\n"+feltNote, `,"response_format":`+feltSchema)},
	{"code", feltChat(160, "Rewrite this Python code with the name people instead of users, and return all of it:\n```python\n"+feltCode+"```", "")},
	{"correct", feltChat(120, "Correct the spelling of this note and return the whole note:\n\n"+strings.ReplaceAll(feltNote, "explained", "explaned"), "")},
	{"extract", feltChat(80, "Copy every sentence about the bank from this note, word for word:\n\n"+feltNote, "")},
}

// feltServer is one side of a comparison.
type feltServer struct {
	b      *testing.B
	url    string
	token  string
	client *http.Client
	pid    func() int
}

// feltCompanion starts a companion that serves the instructed model with speculative decoding.
func feltCompanion(b *testing.B, more string) (*harness.Companion, *feltServer) {
	b.Helper()
	return feltStart(b, more, "COMPANION_RUNTIME_SPECULATION=auto") // opt-in, and what these figures are about
}

// feltStart starts a companion that serves the instructed model. environ has further variables of the daemon.
func feltStart(b *testing.B, more string, environ ...string) (*harness.Companion, *feltServer) {
	b.Helper()
	hub := harness.NewHub(b)
	hub.Publish("model", "smol", harness.Instructed(b).File, "--version", "1", "--default")
	hub.Publish("runtime", harness.RuntimeName, harness.Parts(b).Runtime.File, "--version", "1", "--default")
	c := hub.Companion("[front_door]\nrate_per_minute = 100000\n" + more)
	c.Extra = append(c.Extra, environ...)
	c.Start()
	c.SignIn()
	c.Available()
	url, token := c.Endpoint()
	return c, &feltServer{b, url, token, &http.Client{}, func() int { s, _ := c.Status(); return s.Runtime.PID }}
}

// feltBare starts the bare llama-server with its own defaults and what args add.
func feltBare(b *testing.B, args ...string) *feltServer {
	b.Helper()
	socket := filepath.Join(harness.TempDir(b), "bare.sock")
	p := harness.BareRuntime(b, "unix", socket, append([]string{"--model", harness.Instructed(b).File, "--host", socket, "--offline", "--alias", "smol"}, args...)...)
	return &feltServer{b, "http://bare/v1", "", &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}, func() int { return p.PID }}
}

func (s *feltServer) post(body string) *http.Response {
	request, err := http.NewRequestWithContext(s.b.Context(), http.MethodPost, s.url+"/chat/completions", strings.NewReader(body))
	if err != nil {
		s.b.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if s.token != "" {
		request.Header.Set("Authorization", "Bearer "+s.token)
	}
	response, err := s.client.Do(request)
	if err != nil {
		s.b.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		s.b.Fatalf("got status %d, want 200: %s", response.StatusCode, text)
	}
	return response
}

// answer asks and returns the answer.
func (s *feltServer) answer(body string) (a realAnswer) {
	response := s.post(body)
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&a); err != nil || len(a.Choices) == 0 {
		s.b.Fatalf("got %+v, %v; want an answer", a, err)
	}
	return a
}

// first returns the time to the first event of a stream.
func (s *feltServer) first(body string) time.Duration {
	began := time.Now()
	response := s.post(strings.Replace(body, "{", `{"stream":true,`, 1))
	defer response.Body.Close()
	lines := bufio.NewReader(response.Body)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			s.b.Fatalf("the stream ended before its first token: %v", err)
		}
		if strings.Contains(line, `"content":"`) {
			took := time.Since(began)
			_, _ = io.Copy(io.Discard, lines)
			return took
		}
	}
}

// resident is the resident memory of the runtime in bytes.
func (s *feltServer) resident() float64 { return harness.Memory(s.b, s.pid(), "VmRSS") }

// feltTable collects figures by name.
type feltTable struct {
	names  []string
	values map[string][]float64
}

func (t *feltTable) add(name string, value float64) {
	if t.values == nil {
		t.values = map[string][]float64{}
	}
	if _, found := t.values[name]; !found {
		t.names = append(t.names, name)
	}
	t.values[name] = append(t.values[name], value)
}

func (t *feltTable) median(name string) float64 {
	sorted := slices.Sorted(slices.Values(t.values[name]))
	return sorted[len(sorted)/2]
}

// print writes every figure, and reports the ratio of "X ours" to "X bare" for each X that has both.
func (t *feltTable) print(b *testing.B) {
	b.Logf("%s/%s, %d processors", runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	for _, name := range t.names {
		sorted := slices.Sorted(slices.Values(t.values[name]))
		b.Logf("%-28s min %8.2f  median %8.2f  max %8.2f  of %d", name, sorted[0], t.median(name), sorted[len(sorted)-1], len(sorted))
	}
	for _, name := range t.names {
		what, ours := strings.CutSuffix(name, " ours")
		if _, both := t.values[what+" bare"]; ours && both {
			b.ReportMetric(t.median(name)/t.median(what+" bare"), strings.ReplaceAll(what, " ", "_")+"_ratio")
		}
	}
}

// BenchmarkFeltSpeed compares the tokens per second of each workload, one request at a time.
func BenchmarkFeltSpeed(b *testing.B) {
	_, ours := feltCompanion(b, "")
	bare := feltBare(b)
	var table feltTable
	drafted := map[string]string{}
	for b.Loop() {
		for _, w := range feltWorkloads {
			for name, server := range map[string]*feltServer{"ours": ours, "bare": bare} {
				a := server.answer(w.body)
				table.add(w.name+" "+name, a.Timings.PerSecond)
				if name == "ours" {
					drafted[w.name] = fmt.Sprintf("%d tokens, %d of %d draft tokens accepted", a.Timings.Predicted, a.Timings.Accepted, a.Timings.Drafted)
				}
			}
		}
	}
	table.print(b)
	for _, w := range feltWorkloads {
		b.Logf("%s: %s", w.name, drafted[w.name])
	}
}

// BenchmarkFeltBatch compares the time of many notes, two at a time, and of four requests at once on four slots.
// FELT_NOTES is the number of notes.
func BenchmarkFeltBatch(b *testing.B) {
	notes, err := strconv.Atoi(os.Getenv("FELT_NOTES"))
	if err != nil {
		notes = 100
	}
	_, ours := feltCompanion(b, "[runtime]\nmax_in_flight = 4\n")
	bare := feltBare(b, "--parallel", "4")
	var table feltTable
	for b.Loop() {
		for name, server := range map[string]*feltServer{"ours": ours, "bare": bare} {
			began := time.Now()
			server.several(2, notes, func(i int) string {
				return feltChat(60, fmt.Sprintf("Describe note %d:\n\n%s", i, feltNote), `,"response_format":`+feltSchema)
			})
			table.add("notes s "+name, time.Since(began).Seconds())
			began = time.Now()
			tokens := server.several(4, 4, func(i int) string {
				return feltChat(60, fmt.Sprintf("Tell story %d.", i), `,"ignore_eos":true`)
			})
			table.add("four at once "+name, float64(tokens)/time.Since(began).Seconds())
		}
	}
	table.print(b)
}

// several asks all questions, some at a time, and returns the number of tokens.
func (s *feltServer) several(at, all int, body func(int) string) (tokens int) {
	var mu sync.Mutex
	var workers sync.WaitGroup
	questions := make(chan int)
	for range at {
		workers.Go(func() {
			for i := range questions {
				n := s.answer(body(i)).Timings.Predicted
				mu.Lock()
				tokens += n
				mu.Unlock()
			}
		})
	}
	for i := range all {
		questions <- i
	}
	close(questions)
	workers.Wait()
	return tokens
}

// BenchmarkFeltConversations prints the time to the first token of three long conversations that alternate on two slots,
// against the time of one conversation that stays in its slot, with the prompt cache and without.
func BenchmarkFeltConversations(b *testing.B) {
	_, cached := feltCompanion(b, "")
	_, none := feltCompanion(b, "[runtime]\nprompt_cache = \"0\"\n")
	conversation := func(i int) string {
		return feltChat(2, fmt.Sprintf("Conversation %d. ", i)+strings.Repeat(feltNote+" ", 12)+"What is open?", "")
	}
	var table feltTable
	for _, server := range []*feltServer{cached, none} {
		for i := range 3 {
			server.answer(conversation(i))
		}
	}
	for b.Loop() {
		for i := range 3 {
			table.add("alternating ms cache", ms(cached.first(conversation(i))))
			table.add("warm ms", ms(cached.first(conversation(i))))
			table.add("alternating ms none", ms(none.first(conversation(i))))
		}
	}
	table.print(b)
	b.ReportMetric(table.median("alternating ms cache")/table.median("warm ms"), "cache_to_warm_ratio")
	b.ReportMetric(table.median("alternating ms none")/table.median("warm ms"), "none_to_warm_ratio")
}

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }

// BenchmarkFeltSleep prints the memory of a sleeping model and the time to the first token after sleep, against the time
// that the bare runtime takes from its start to its first healthy answer.
func BenchmarkFeltSleep(b *testing.B) {
	c, ours := feltCompanion(b, "[runtime]\nidle_unload = \"4s\"\n[health]\nbeat = \"500ms\"\nrecency = \"6s\"\nidle_probe = \"1s\"\n")
	bare, model := harness.UnpackRuntime(b), harness.Instructed(b).File
	body := feltChat(1, "Hello", "")
	var table feltTable
	for b.Loop() {
		ours.answer(body)
		table.add("awake MiB", ours.resident())
		table.add("awake first token ms", ms(ours.first(body)))
		c.Await("asleep", time.Minute, func(s messages.Status) bool { return s.Runtime.Asleep })
		table.add("asleep MiB", ours.resident())
		table.add("first token after sleep ms", ms(ours.first(body)))
		table.add("bare start ms", ms(bareStart(b, bare, model)))
	}
	table.print(b)
	b.ReportMetric(table.median("asleep MiB")/table.median("awake MiB"), "asleep_to_awake_ratio")
	b.ReportMetric(table.median("first token after sleep ms")-table.median("bare start ms"), "added-ms")
}

// BenchmarkFeltPriority prints the tokens per second of both priorities, alone and with a compiler on the same processors.
func BenchmarkFeltPriority(b *testing.B) {
	_, normal := feltCompanion(b, "")
	_, background := feltCompanion(b, "[runtime]\npriority = \"background\"\n")
	body := feltWorkloads[0].body
	var table feltTable
	measure := func(how string) {
		table.add("normal "+how, normal.answer(body).Timings.PerSecond)
		table.add("background "+how, background.answer(body).Timings.PerSecond)
	}
	for b.Loop() {
		measure("alone")
		stop := compile(b)
		measure("with a compiler")
		stop()
	}
	table.print(b)
}

// compile compiles packages of the standard library until stop is called.
func compile(b *testing.B) (stop func()) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			cmd := exec.CommandContext(ctx, "go", "build", "-a", "net/http")
			cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "CGO_ENABLED=0")
			_ = cmd.Run()
		}
	}()
	return func() { cancel(); <-ended }
}

// BenchmarkFeltSame prints the share of a hundred greedy answers that differ with and without draft tokens:
// computing several tokens in one step rounds differently, and a tie may then fall to the other side.
func BenchmarkFeltSame(b *testing.B) {
	runtime := harness.UnpackRuntime(b)
	with := realSpec(b, runtime)
	with.Features, with.Speculate = spawn.Features{Speculation: true}, true
	speculating, plain := startReal(b, with), startReal(b, realSpec(b, runtime))
	const prompts = 100
	for b.Loop() {
		differ, accepted, drafted := 0, 0, 0
		for i := range prompts {
			w := feltWorkloads[i%len(feltWorkloads)]
			body := strings.Replace(w.body, "{", `{"cache_prompt":false,`, 1)
			body = strings.Replace(body, `"content":"`, fmt.Sprintf(`"content":"Task %d. `, i), 1)
			body = withTokens(body, 40)
			a, p := speculating(body), plain(body)
			if a.Choices[0].Message.Content != p.Choices[0].Message.Content {
				differ++
			}
			accepted += a.Timings.Accepted
			drafted += a.Timings.Drafted
		}
		b.ReportMetric(float64(differ)/prompts, "differ-share")
		b.Logf("%d of %d answers differ; %d of %d draft tokens accepted", differ, prompts, accepted, drafted)
	}
}

// withTokens replaces the bound on the answer's tokens.
func withTokens(body string, tokens int) string {
	before, after, found := strings.Cut(body, `"max_tokens":`)
	if !found {
		return body
	}
	rest := bytes.TrimLeft([]byte(after), "0123456789")
	return before + `"max_tokens":` + strconv.Itoa(tokens) + string(rest)
}
