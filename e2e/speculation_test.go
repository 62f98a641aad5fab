package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"companion/adapters/runtime/fileid"
	"companion/adapters/runtime/spawn"
	"companion/e2e/fixtures/fixture"
	"companion/e2e/harness"
	"companion/messages"
)

// realSpec is a start of the real runtime with the instructed model, outside of a daemon.
func realSpec(t testing.TB, runtime messages.VerifiedRuntime) spawn.Spec {
	t.Helper()
	model := harness.Instructed(t).File
	file, err := os.Open(model)
	if err != nil {
		t.Fatal(err)
	}
	id, err := fileid.Of(file)
	_ = file.Close()
	if err != nil {
		t.Fatal(err)
	}
	dir := harness.TempDir(t)
	return spawn.Spec{
		Model: messages.VerifiedModel{Name: "smol", Path: model, Identity: id}, Runtime: runtime,
		RunDir: dir, RecordPath: filepath.Join(dir, "runtime.json"), Context: 2048, MaxInFlight: 1, Sandbox: spawn.Require,
	}
}

// otherRuntime unpacks the older build of the runtime.
func otherRuntime(t testing.TB) messages.VerifiedRuntime {
	t.Helper()
	part, err := fixture.FetchOther(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	dir := harness.TempDir(t)
	if out, err := exec.Command("tar", "-xzf", part.File, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("unpacking the runtime: %v\n%s", err, out)
	}
	return messages.VerifiedRuntime{Name: "llama-server", Dir: filepath.Join(dir, "bin"), Executable: "llama-server"}
}

// R12: both real builds of the runtime list what is used of them, inside the sandbox, and nothing of that start is
// left.
func TestRuntimeListsItsOptions(t *testing.T) {
	for name, runtime := range map[string]messages.VerifiedRuntime{
		"newest": harness.UnpackRuntime(t), "older": otherRuntime(t),
	} {
		spec := realSpec(t, runtime)
		got, err := spawn.Ask(t.Context(), spec)
		if want := (spawn.Features{Speculation: true, Draft: true, Sleep: true, NoWarmup: true}); err != nil || got != want {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, err, want)
		}
		if left, err := os.ReadDir(spec.RunDir); err != nil || len(left) > 0 {
			t.Errorf("%s: got %v, %v left, want nothing", name, left, err)
		}
	}
}

// realAnswer is what a test reads of an answer of the runtime.
type realAnswer struct {
	Choices []struct {
		Message struct{ Content string }
	}
	Timings struct {
		Predicted int     `json:"predicted_n"`
		Drafted   int     `json:"draft_n"`
		Accepted  int     `json:"draft_n_accepted"`
		PerSecond float64 `json:"predicted_per_second"`
	}
}

// startReal starts the runtime of spec and returns a function that asks it.
func startReal(t testing.TB, spec spawn.Spec) func(body string) realAnswer {
	t.Helper()
	started, err := spawn.Spawn(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		started.Handle.Kill(context.Background(), time.Second)
		<-started.Exit
	})
	for deadline := time.Now().Add(time.Minute); spawn.Health(t.Context(), started.BackEnd, started.Handle.PID()) != nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the runtime did not become healthy")
		}
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", started.BackEnd.Address)
	}}}
	return func(body string) (answer realAnswer) {
		t.Helper()
		response, err := client.Post("http://back-end/v1/chat/completions", "application/json", bytes.NewBufferString(body))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || len(answer.Choices) != 1 {
			t.Fatalf("got %+v, %v; want one answer", answer, err)
		}
		return answer
	}
}

const noteText = `The meeting with the harbour office took place on Tuesday morning. Anna explained that the new crane will ` +
	`arrive in March, and that the foundations must be ready two weeks before. Peter asked who pays for the delay if the ` +
	`concrete does not dry in time. The office answered that the contract names the builder.`

// R12: a runtime with speculative decoding accepts some of them where the answer repeats the text. Equal requests
// with a seed get the same text twice, with another request between them, in both builds.
func TestSeedWithSpeculation(t *testing.T) {
	for name, runtime := range map[string]messages.VerifiedRuntime{
		"newest": harness.UnpackRuntime(t), "older": otherRuntime(t),
	} {
		spec := realSpec(t, runtime)
		spec.Features, spec.Speculate = spawn.Features{Speculation: true}, true
		ask := startReal(t, spec)
		accepted := 0
		for seed := range 4 {
			content, err := json.Marshal(fmt.Sprintf("Copy this note word for word, then say %d:\n\n%s", seed, noteText))
			if err != nil {
				t.Fatal(err)
			}
			// The front door adds cache_prompt to a request with a seed.
			body := fmt.Sprintf(`{"messages":[{"role":"user","content":%s}],"max_tokens":60,"temperature":0.8,"seed":%d,"cache_prompt":false}`, content, seed)
			first := ask(body)
			ask(`{"messages":[{"role":"user","content":"` + strings.Repeat("another text ", seed+1) + `"}],"max_tokens":3}`)
			second := ask(body)
			if a, b := first.Choices[0].Message.Content, second.Choices[0].Message.Content; a != b || a == "" {
				t.Errorf("%s, seed %d: got %q, then %q; want the same text", name, seed, a, b)
			}
			accepted += first.Timings.Accepted
		}
		if accepted == 0 {
			t.Errorf("%s: got no accepted draft token, want some", name)
		}
	}
}
