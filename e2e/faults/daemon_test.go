package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"companion/adapters/authority/keychain"
	"companion/adapters/door/loopback"
	"companion/e2e/harness"
)

// orphanWithin is the bound for how long a runtime lives after its daemon was killed. On a busy machine the
// kernel can take longer to free a model's memory; a runtime that exists after orphanAlways has outlived its
// daemon.
const (
	orphanWithin = 100 * time.Millisecond
	orphanAlways = 10 * time.Second
)

// Every way in which the daemon can end, in one companion that is restarted each time.
func TestDaemon(t *testing.T) {
	t.Parallel()
	c := harness.Ready(t, settings)
	c.Stop()
	t.Run("killed", func(t *testing.T) { killed(t, c) })
	t.Run("recycled id", func(t *testing.T) { recycled(t, c) })
	t.Run("interrupted", func(t *testing.T) { interrupted(t, c) })
	t.Run("interrupted twice", func(t *testing.T) { interruptedTwice(t, c) })
	t.Run("stopped with a hung runtime", func(t *testing.T) { stoppedHung(t, c) })
	t.Run("under systemd", func(t *testing.T) { underSystemd(t, c) })
	t.Run("model corrupted between starts", func(t *testing.T) { corruptedBetween(t, c) })
}

// R2, R7, T8: a daemon that is killed at any moment leaves no runtime behind, and the next start is
// clean.
func killed(t *testing.T, c *harness.Companion) {
	rounds := repetitions(t, "FAULTS_KILLS", 8)
	with, late := 0, 0
	for round := range rounds {
		daemon := c.Launch()
		// A little longer than a start takes, so that some kills hit a working daemon.
		time.Sleep(rand.N(3 * time.Second))
		running := c.Runtimes()
		daemon.Kill()
		time.Sleep(orphanWithin)
		if len(c.Runtimes()) != 0 {
			late++
		}
		for end := time.Now().Add(orphanAlways); len(c.Runtimes()) != 0; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("round %d: %v after the daemon's end got runtimes %v, want none", round, orphanAlways, c.Runtimes())
			}
		}
		if len(running) > 0 {
			with++
		}
	}
	t.Logf("killed %d times, %d of them with a runtime: none outlived the daemon, %d were gone later than after %v", rounds, with, late, orphanWithin)
	if with == 0 {
		t.Error("no kill came while a runtime ran; this proves nothing")
	}
	clean(t, c)
	c.Stop()
}

// clean starts the daemon and checks that nothing of earlier daemons blocks the start or remains.
func clean(t *testing.T, c *harness.Companion) {
	t.Helper()
	daemon := c.Start()
	c.Available()
	endpoint, err := loopback.ReadEndpoint(filepath.Join(c.RunTime(), "endpoint.json"))
	if err != nil || endpoint.PID != daemon.PID {
		t.Errorf("got endpoint file %+v, %v, want process %d", endpoint, err, daemon.PID)
	}
	sockets, err := filepath.Glob(filepath.Join(c.RunTime(), "backend", "backend-*"))
	if err != nil || len(sockets) != 1 {
		t.Errorf("got folders of starts %v, %v, want one", sockets, err)
	}
	if running := c.Runtimes(); len(running) != 1 {
		t.Errorf("got runtimes %v, want one", running)
	}
	answers(t, c)
}

// R7, T8: a process that has the recorded id, and even the recorded start time, but is another
// program, is left alone.
func recycled(t *testing.T, c *harness.Companion) {
	record := filepath.Join(c.State(), "runtime.json")
	for name, alike := range map[string]bool{"same id": false, "same id and start time": true} {
		daemon := c.Start()
		c.Available()
		daemon.Kill()
		stranger := exec.Command("sleep", "600")
		if err := stranger.Start(); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(record)
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]any
		decoder := json.NewDecoder(strings.NewReader(string(data)))
		decoder.UseNumber()
		if err := decoder.Decode(&fields); err != nil || fields["pid"] == nil || fields["startTime"] == nil {
			t.Fatalf("got record %s, %v, want pid and startTime", data, err)
		}
		fields["pid"] = stranger.Process.Pid
		if alike {
			fields["startTime"] = json.Number(startTime(t, stranger.Process.Pid))
		}
		if data, err = json.Marshal(fields); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(record, data, 0o600); err != nil {
			t.Fatal(err)
		}
		clean(t, c)
		if !harness.Alive(stranger.Process.Pid) {
			t.Errorf("%s: an unrelated process was killed", name)
		}
		_ = stranger.Process.Kill()
		_ = stranger.Wait()
		c.Stop()
	}
}

// startTime is field 22 of proc_pid_stat(5).
func startTime(t *testing.T, pid int) string {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	return fields[22-3]
}

// X7, A7, K6, L2: the first interrupt refuses new requests, lets the running one finish, stops the
// runtime, clears the token and ends with 0; nothing is left.
func interrupted(t *testing.T, c *harness.Companion) {
	daemon := c.Start("--set", "runtime.drain_timeout=40s") // a busy machine writes a word a second
	c.Available()
	door := c.Door()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream := door.Stream(ctx, 25)
	daemon.Signal(os.Interrupt)
	await := time.Now().Add(5 * time.Second)
	for {
		reply := door.Chat(ctx, 1)
		if reply.Status == 503 || reply.Err != nil {
			break
		}
		if time.Now().After(await) {
			t.Fatal("requests are admitted after the interrupt")
		}
	}
	if code := daemon.Wait(time.Minute); code != 0 {
		t.Errorf("run ended with %d, want 0", code)
	}
	if ended(t, stream, time.Second); !stream.Whole() {
		t.Errorf("got the open stream %v, want it whole", stream)
	}
	nothingLeft(t, c)
	if _, found := c.Secret(keychain.LoopbackToken); found {
		t.Error("the loopback token is in the keychain, want it removed")
	}
	if r := c.Run("env"); r.Code != 3 || strings.Contains(r.Stdout, "OPENAI") {
		t.Errorf("env afterwards: got exit %d, %q, want 3 and no variables", r.Code, r.Stdout)
	}
}

// nothingLeft fails if a runtime, a socket, or an endpoint file with an address remains.
func nothingLeft(t *testing.T, c *harness.Companion) {
	t.Helper()
	if running := c.Runtimes(); len(running) != 0 {
		t.Errorf("got runtimes %v, want none", running)
	}
	if sockets, _ := filepath.Glob(filepath.Join(c.RunTime(), "backend", "backend-*")); len(sockets) != 0 {
		t.Errorf("got folders of starts %v, want none", sockets)
	}
	if _, err := os.Stat(filepath.Join(c.RunTime(), "endpoint.json")); !os.IsNotExist(err) {
		t.Errorf("the endpoint file: got %v, want it removed", err)
	}
}

// X7, R2: the second interrupt ends the daemon at once, and with it the runtime.
func interruptedTwice(t *testing.T, c *harness.Companion) {
	daemon := c.Start()
	c.Available()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream := c.Door().Stream(ctx, 3000)
	daemon.Signal(os.Interrupt)
	time.Sleep(300 * time.Millisecond)
	if !daemon.Running() {
		t.Fatal("the first interrupt did not wait for the open stream")
	}
	daemon.Signal(os.Interrupt)
	if code := daemon.Wait(2 * time.Second); code != 130 {
		t.Errorf("run ended with %d, want 130", code)
	}
	time.Sleep(orphanWithin)
	if left := c.Runtimes(); len(left) != 0 {
		t.Errorf("got runtimes %v, want none", left)
	}
	ended(t, stream, time.Second)
	clean(t, c)
	c.Stop()
}

// X7, R6: a paused runtime neither keeps the daemon from ending nor survives it.
func stoppedHung(t *testing.T, c *harness.Companion) {
	daemon := c.Start()
	status := c.Available()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream := c.Door().Stream(ctx, 3000)
	if err := syscall.Kill(status.Runtime.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	daemon.Signal(syscall.SIGTERM)
	code := daemon.Wait(drainTimeout + 15*time.Second)
	t.Logf("ended after %v", time.Since(began).Round(time.Millisecond))
	if code != 0 {
		t.Errorf("run ended with %d, want 0", code)
	}
	if ended(t, stream, time.Second); !stream.Failed {
		t.Errorf("got the open stream %v, want a final error event", stream)
	}
	nothingLeft(t, c)
	if _, found := c.Secret(keychain.LoopbackToken); found {
		t.Error("the loopback token is in the keychain, want it removed")
	}
}

// M9, T6, T10: a model that was changed while the daemon was away is not started.
func corruptedBetween(t *testing.T, c *harness.Companion) {
	c.Start()
	c.Available()
	c.Must("logout") // otherwise it is fetched again
	c.Stop()
	flip(t, modelFile(t, c))
	c.Start()
	deadline := time.Now().Add(30 * time.Second)
	for {
		status, _ := probe(t, c)
		if status.CompanionAvailable || status.Runtime.PID != 0 || len(c.Runtimes()) != 0 {
			t.Fatalf("with a changed model: got runtime %+v, want none", status.Runtime)
		}
		if status.Reason == "digest_mismatch" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the reason is %q, want digest_mismatch", status.Reason)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if r := c.Run("chat", "Hello."); r.Code == 0 {
		t.Error("got a chat answer with a changed model, want a refusal")
	}
	c.Stop()
}
