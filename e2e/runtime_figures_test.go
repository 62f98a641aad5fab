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
	"slices"
	"syscall"
	"testing"
	"time"

	"companion/adapters/door/controlsock"
	"companion/adapters/runtime/fileid"
	"companion/adapters/runtime/spawn"
	"companion/e2e/harness"
	"companion/messages"
)

// tokensPerSecond generates 50 tokens several times and returns the best rate, which other load on the
// machine affects least.
func tokensPerSecond(b *testing.B, socket string) float64 {
	b.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}}
	const body = `{"prompt":"Once upon a time","max_tokens":50,"temperature":0,"seed":1,"cache_prompt":false,"ignore_eos":true}`
	var best float64
	for range 3 {
		response, err := client.Post("http://back-end/v1/completions", "application/json", bytes.NewBufferString(body))
		if err != nil {
			b.Fatal(err)
		}
		var answer struct {
			Timings struct {
				PredictedPerSecond float64 `json:"predicted_per_second"`
			}
		}
		err = json.NewDecoder(response.Body).Decode(&answer)
		_ = response.Body.Close()
		if err != nil || answer.Timings.PredictedPerSecond == 0 {
			b.Fatalf("got no timings in the answer, want them: %v", err)
		}
		best = max(best, answer.Timings.PredictedPerSecond)
	}
	return best
}

func awaitHealth(b *testing.B, backEnd messages.BackEnd, pid int) {
	b.Helper()
	for deadline := time.Now().Add(time.Minute); spawn.Health(b.Context(), backEnd, pid) != nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatal("the runtime did not become healthy")
		}
	}
}

// BenchmarkConfinement prints tokens per second of the real runtime inside the sandbox, and outside with the
// same arguments. The ratio must be at least 0.98.
func BenchmarkConfinement(b *testing.B) {
	model := harness.Parts(b).Model.File
	file, err := os.Open(model)
	if err != nil {
		b.Fatal(err)
	}
	id, err := fileid.Of(file)
	_ = file.Close()
	if err != nil {
		b.Fatal(err)
	}
	runtime := harness.UnpackRuntime(b)
	var inside, outside float64
	for b.Loop() {
		dir := harness.TempDir(b)
		started, err := spawn.Spawn(spawn.Spec{
			Model: messages.VerifiedModel{Name: "m", Path: model, Identity: id}, Runtime: runtime,
			RunDir: dir, RecordPath: filepath.Join(dir, "runtime.json"), Context: 1024, MaxInFlight: 1, Sandbox: spawn.Require,
		})
		if err != nil {
			b.Fatal(err)
		}
		awaitHealth(b, started.BackEnd, started.Handle.PID())
		arguments, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", started.Handle.PID()))
		if err != nil {
			b.Fatal(err)
		}
		inside = max(inside, tokensPerSecond(b, started.BackEnd.Address))
		started.Handle.Kill(b.Context(), 5*time.Second)
		<-started.Exit
		outside = max(outside, unconfined(b, runtime, model, arguments, started.BackEnd.Address))
	}
	b.ReportMetric(inside, "tokens/s-inside")
	b.ReportMetric(outside, "tokens/s-outside")
	b.ReportMetric(inside/outside, "ratio")
}

// unconfined runs the same arguments without stage and sandbox, on a socket of its own.
func unconfined(b *testing.B, runtime messages.VerifiedRuntime, model string, arguments []byte, socket string) float64 {
	b.Helper()
	own := filepath.Join(harness.TempDir(b), "llama.sock")
	var args []string
	for _, arg := range bytes.Split(bytes.TrimRight(arguments, "\x00"), []byte{0})[1:] {
		switch string(arg) {
		case socket:
			args = append(args, own)
		case "/proc/self/fd/3":
			args = append(args, model)
		default:
			args = append(args, string(arg))
		}
	}
	cmd := exec.Command(filepath.Join(runtime.Dir, runtime.Executable), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	old := syscall.Umask(0o177)
	err := cmd.Start()
	syscall.Umask(old)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	awaitHealth(b, messages.BackEnd{Network: "unix", Address: own}, cmd.Process.Pid)
	return tokensPerSecond(b, own)
}

// BenchmarkRuntimeKilled prints, for the real runtime, the time from SIGKILL until a watcher on the control socket
// learns of it (p99 of 200 at most 5 ms: run it with -benchtime 200x). It also prints how long the kernel takes to report
// the exit, because it frees the model's memory first, and how much longer than the bare runtime's own start it takes
// until inference is available again (at most 500 ms after a first crash). The runtime is idle before. Daemon, watcher
// and killer are programs in separate sessions, as under a service manager and in two terminals: the kernel shares
// processors between sessions, and charges the recent use of one program to its whole session.
func BenchmarkRuntimeKilled(b *testing.B) {
	runtime, model := harness.UnpackRuntime(b), harness.Parts(b).Model.File
	var bare []time.Duration
	for range 5 {
		bare = append(bare, bareStart(b, runtime, model))
	}
	slices.Sort(bare)
	c := harness.Ready(b, "")
	client := controlsock.Dial(filepath.Join(c.RunTime(), "control.sock"))
	lost := make(chan time.Time, 64)
	ready := make(chan seen, 64)
	watching, stop := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() {
		was := false
		done <- client.Watch(watching, func(s messages.Status) error {
			switch {
			case s.CompanionAvailable && !was:
				ready <- seen{s.Runtime.PID, time.Now()}
			case !s.CompanionAvailable && was:
				lost <- time.Now()
			}
			was = s.CompanionAvailable
			return nil
		})
	}()
	defer func() { stop(); <-done }()
	var word, exit, again []time.Duration
	kill := killer(b)
	now := <-ready
	for b.Loop() {
		pidfd, err := os.FindProcess(now.pid)
		if err != nil {
			b.Fatal(err)
		}
		var gone time.Time
		began := kill(now.pid, func() { gone = <-lost })
		word = append(word, gone.Sub(began))
		for pidfd.Signal(syscall.Signal(0)) == nil && time.Since(began) < time.Second {
			time.Sleep(100 * time.Microsecond)
		}
		exit = append(exit, time.Since(began))
		now = <-ready
		again = append(again, now.at.Sub(gone)-harness.Median(bare))
		// A user's start clears earlier failures, so that each crash is a first one.
		if reason, err := client.Start(b.Context()); err != nil || reason != messages.ReasonOK {
			b.Fatalf("start: got %s, %v, want ok", reason, err)
		}
	}
	for name, times := range map[string][]time.Duration{"word": word, "exit": exit, "again-added": again} {
		slices.Sort(times)
		b.ReportMetric(harness.Median(times).Seconds()*1e3, name+"-p50-ms")
		b.ReportMetric(times[(len(times)*99-1)/100].Seconds()*1e3, name+"-p99-ms")
	}
}

// killer starts a program that kills processes by SIGKILL, half a second after the request. The returned
// function requests a kill, calls gone, and returns the time at which the signal was sent. The watcher's own
// program must not send it: its threads would compete with the watching one.
func killer(b *testing.B) func(pid int, gone func()) time.Time {
	b.Helper()
	cmd := exec.Command("bash", "-c", `while read -r pid; do read -r -t 0.5; at=$EPOCHREALTIME; kill -9 $pid; read -r; echo $at; done`)
	cmd.Stderr, cmd.SysProcAttr = os.Stderr, &syscall.SysProcAttr{Setsid: true}
	orders, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _, _ = orders.Close(), cmd.Wait() })
	return func(pid int, gone func()) time.Time {
		b.Helper()
		if _, err := fmt.Fprintln(orders, pid); err != nil {
			b.Fatal(err)
		}
		gone()
		var second, microsecond int64
		if _, err := fmt.Fprintln(orders); err != nil {
			b.Fatal(err)
		}
		if _, err := fmt.Fscanf(answers, "%d.%d\n", &second, &microsecond); err != nil {
			b.Fatal(err)
		}
		return time.Unix(second, microsecond*1000)
	}
}

// seen is a runtime that became available, and the time at which the watcher learned of it.
type seen struct {
	pid int
	at  time.Time
}
