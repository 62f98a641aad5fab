package notes

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"companion/adapters/completion/enrich"
	"companion/e2e/harness"
)

// judged is a note with what a good result says about it. One word of each group must occur in summary, tags or
// questions, in any case.
type judged struct {
	text  string
	words [][]string
	asks  bool // the note leaves a question open
}

// judgedNotes were written for this benchmark.
var judgedNotes = []judged{
	{"The tomatoes in bed two want more sun. Move them in May. Should the compost go there too?", [][]string{{"tomato"}, {"sun", "move", "may", "compost"}}, true},
	{"Meeting with Ines: the invoice for the roof is 400 euros too high. She will call the roofer on Tuesday.", [][]string{{"invoice", "roof"}, {"ines", "tuesday", "call", "400"}}, false},
	{"The backup of the laptop failed twice this week. The disk is full. Which folders can we leave out?", [][]string{{"backup", "disk"}, {"full", "fail", "folder"}}, true},
	{"Recipe for rye bread: 500 g rye flour, 350 g water, 10 g salt. Let it rest for a night, bake for an hour.", [][]string{{"bread", "rye", "recipe"}, {"flour", "bake", "water", "salt"}}, false},
	{"Reading notes on tides: the moon causes two bulges of water, so most coasts have two high tides a day.", [][]string{{"tide", "moon"}, {"water", "coast", "bulge", "high"}}, false},
	{"The train to Lyon leaves at 7:14 from platform 3. The hotel is not booked yet. Who books it?", [][]string{{"train", "lyon"}, {"hotel", "platform", "book"}}, true},
	{"The cat has lost weight since March. The vet wants a blood test on Friday before she changes the food.", [][]string{{"cat", "vet"}, {"weight", "blood", "test", "food"}}, false},
	{"Idea: a small lamp that dims with the sunset. It needs a light sensor and a battery for one night.", [][]string{{"lamp", "light"}, {"sensor", "battery", "sunset", "dim"}}, false},
	{"The choir sings in the old church on the 12th. Two altos are ill. Can we ask the students to help?", [][]string{{"choir", "church", "sing"}, {"alto", "student", "ill"}}, true},
	{"Running log: 8 km in 46 minutes along the river, knee hurt after kilometre five, rest tomorrow.", [][]string{{"run", "km", "kilomet"}, {"knee", "river", "rest"}}, false},
}

// score returns the share of word groups that occur, and of notes whose open question was kept or whose lack of one was.
func score(results []enrich.Result, notes []judged) (words, questions float64) {
	var found, groups, right int
	for i, r := range results {
		text := strings.ToLower(r.Summary + " " + strings.Join(r.Tags, " ") + " " + strings.Join(r.OpenQuestions, " "))
		for _, group := range notes[i].words {
			groups++
			if slices.ContainsFunc(group, func(word string) bool { return strings.Contains(text, word) }) {
				found++
			}
		}
		if (len(r.OpenQuestions) > 0) == notes[i].asks {
			right++
		}
	}
	return float64(found) / float64(groups), float64(right) / float64(len(results))
}

// lane starts a bare runtime with the model and returns a command line with it as the lane self_hosted.
func bareLane(b *testing.B, model string) (*cli, string) {
	b.Helper()
	socket := filepath.Join(harness.TempDir(b), "s.sock")
	harness.BareRuntime(b, "unix", socket, "--host", socket, "--model", model, "--alias", "m", "--ctx-size", "8192", "--parallel", "2", "--metrics")
	return newCLI(b, fmt.Sprintf("[runtime]\nmax_in_flight = 2\n[lanes.self_hosted]\nmodel = \"m\"\nbase_url = \"unix:%s\"\n", socket)), socket
}

// BenchmarkQuality scores results of each model of the fixtures on notes with known content.
func BenchmarkQuality(b *testing.B) {
	for name, model := range map[string]string{"SmolLM2-135M-Instruct": harness.Instructed(b).File, "gemma-3-270m (base)": harness.Parts(b).Model.File} {
		b.Run(name, func(b *testing.B) {
			c, _ := bareLane(b, model)
			dir := vault(b, 0)
			for i, note := range judgedNotes {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("q%02d.md", i)), []byte(note.text), 0o600); err != nil {
					b.Fatal(err)
				}
			}
			for range b.N {
				file := filepath.Join(b.TempDir(), "out.jsonl")
				code, _, stderr := c.run("enrich", "--lane", "self_hosted", "--private=false", "--output", file, dir)
				all, _ := results(b, file)
				var ordered []enrich.Result
				var kept []judged
				for i := range judgedNotes {
					if r, ok := all[filepath.Join(dir, fmt.Sprintf("q%02d.md", i))]; ok {
						ordered, kept = append(ordered, r), append(kept, judgedNotes[i])
					}
				}
				if len(ordered) == 0 {
					b.Fatalf("got exit %d and no result, want some: %s", code, stderr)
				}
				words, questions := score(ordered, kept)
				b.ReportMetric(words, "content")
				b.ReportMetric(questions, "questions")
				b.ReportMetric(float64(len(ordered))/float64(len(judgedNotes)), "done")
			}
		})
	}
}

// dialUnix connects to socket, whatever the address.
func dialUnix(socket string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
}

// runtimeSeconds is what the runtime says it has computed, for prompts and answers.
func runtimeSeconds(b *testing.B, socket string) (seconds float64) {
	b.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: dialUnix(socket)}}
	defer client.CloseIdleConnections()
	response, err := client.Get("http://runtime/metrics")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if name == "llamacpp:prompt_seconds_total" || name == "llamacpp:tokens_predicted_seconds_total" {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				b.Fatal(err)
			}
			seconds += n
		}
	}
	return seconds
}

// BenchmarkRun: the time of a run against the runtime's own prompt and generation time divided by its slots (at most
// 1.05), start of the program included. It alternates with as many requests at once as the runtime has slots, where a slot waits
// between two notes. E2E_NOTES sets the number of notes.
func BenchmarkRun(b *testing.B) {
	notes := 40
	if n, err := strconv.Atoi(os.Getenv("E2E_NOTES")); err == nil {
		notes = n
	}
	c, socket := bareLane(b, harness.Instructed(b).File)
	dir := vault(b, notes)
	harness.Binary(b, "companion") // build it before the clock runs
	ratios := map[string][]float64{}
	for range b.N {
		for name, jobs := range map[string]string{"ratio": "0", "slots-ratio": "2"} {
			before, started := runtimeSeconds(b, socket), time.Now()
			code, _, stderr := c.run("enrich", "--lane", "self_hosted", "--private=false", "--jobs", jobs, "--output", filepath.Join(b.TempDir(), "out.jsonl"), dir)
			took := time.Since(started).Seconds()
			if code != 0 {
				b.Logf("got exit %d, want 0: %s", code, stderr)
			}
			ratios[name] = append(ratios[name], took/((runtimeSeconds(b, socket)-before)/2))
		}
	}
	reportRatios(b, ratios)
}

// BenchmarkSlots is BenchmarkRun at a lane of two slots that takes 40 ms for each request and no processor time.
func BenchmarkSlots(b *testing.B) {
	const notes, slots, each = 200, 2, 40 * time.Millisecond
	busy := make(chan struct{}, slots)
	server := newServer(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		busy <- struct{}{}
		time.Sleep(each)
		<-busy
		answerLikeAModel(w)
	}))
	c := newCLI(b, fmt.Sprintf("[runtime]\nmax_in_flight = %d\n[lanes.self_hosted]\nbase_url = %q\nmodel = \"m\"\n", slots, server))
	dir := vault(b, notes)
	harness.Binary(b, "companion") // build it before the clock runs
	ratios := map[string][]float64{}
	for range b.N {
		for name, jobs := range map[string]string{"ratio": "0", "slots-ratio": strconv.Itoa(slots)} {
			started := time.Now()
			if code, _, stderr := c.run("enrich", "--lane", "self_hosted", "--private=false", "--jobs", jobs, "--output", filepath.Join(b.TempDir(), "out.jsonl"), dir); code != 0 {
				b.Fatalf("got exit %d, want 0: %s", code, stderr)
			}
			ratios[name] = append(ratios[name], time.Since(started).Seconds()/(notes*each/slots).Seconds())
		}
	}
	reportRatios(b, ratios)
}

// reportRatios reports the smallest, median and largest ratio of each kind.
func reportRatios(b *testing.B, ratios map[string][]float64) {
	b.Helper()
	for name, values := range ratios {
		slices.Sort(values)
		b.ReportMetric(values[0], name+"/min")
		b.ReportMetric(values[len(values)/2], name+"/p50")
		b.ReportMetric(values[len(values)-1], name+"/max")
	}
}

// resident is the memory of a process in KiB.
func resident(b *testing.B, pid int) int {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(data), "VmRSS:")
	kib, _ := strconv.Atoi(strings.Fields(rest + " 0")[0])
	return kib
}

// BenchmarkMemory: growth of the program's memory from the two-thousandth to the last of 50 000 notes, with a lane that
// answers at once (at most 5 MiB).
func BenchmarkMemory(b *testing.B) {
	const notes = 50_000
	dir := vault(b, 0)
	text := bytes.Repeat([]byte("The tomatoes want more sun. "), 40)
	for i := range notes {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("n%05d.md", i)), text, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	for range b.N {
		far := &counter{}
		server := newServer(b, far)
		c := newCLI(b, fmt.Sprintf("[runtime]\nmax_in_flight = 4\n[lanes.self_hosted]\nbase_url = %q\nmodel = \"m\"\n", server))
		cmd := c.command("enrich", "--lane", "self_hosted", "--private=false", dir)
		cmd.Stdout = io.Discard
		far.at(2000, func(int) { far.early.Store(int64(resident(b, cmd.Process.Pid))) })
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		far.at(notes-10, func(int) { far.late.Store(int64(resident(b, cmd.Process.Pid))) })
		if err := cmd.Wait(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(far.early.Load())/1024, "MiB/early")
		b.ReportMetric(float64(far.late.Load())/1024, "MiB/late")
	}
}

// BenchmarkInterrupt: from Ctrl-C at a random moment to the end of the program (at most 200 ms): while it finds and reads notes,
// splits long ones, waits for the lane, and writes results to two places.
func BenchmarkInterrupt(b *testing.B) {
	server := newServer(b, &counter{pause: 5 * time.Millisecond})
	c := newCLI(b, fmt.Sprintf("[lanes.self_hosted]\nbase_url = %q\nmodel = \"m\"\n", server))
	dir := vault(b, 500)
	long := bytes.Repeat([]byte("# Part\n\nThe tomatoes want more sun, and the compost is ready.\n\n"), 20_000)
	for i := range 5 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("long%d.md", i)), long, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	var took []time.Duration
	for range b.N {
		cmd := c.command("enrich", "--lane", "self_hosted", "--private=false", "--write", "sidecar", "--output", filepath.Join(b.TempDir(), "out.jsonl"), dir)
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		time.Sleep(time.Duration(30+rand.IntN(1500)) * time.Millisecond)
		at := time.Now()
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		took = append(took, time.Since(at))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "ms/p50")
	b.ReportMetric(float64(took[len(took)-1].Milliseconds()), "ms/max")
}
