package faults

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"companion/e2e/harness"
	"companion/messages"
)

// Faults of the runtime from outside, one after another, in one companion.
func TestRuntime(t *testing.T) {
	t.Parallel()
	c := harness.Ready(t, settings)
	t.Run("killed", func(t *testing.T) { lost(t, c, syscall.SIGKILL, false, time.Second) })
	t.Run("killed mid-stream", func(t *testing.T) { lost(t, c, syscall.SIGKILL, true, time.Second) })
	t.Run("paused", func(t *testing.T) { lost(t, c, syscall.SIGSTOP, false, recency) })
	t.Run("paused mid-stream", func(t *testing.T) { lost(t, c, syscall.SIGSTOP, true, recency) })
	t.Run("paused while starting", func(t *testing.T) { slow(t, c) })
	t.Run("crash loop", func(t *testing.T) { crashLoop(t, c) })
	t.Run("model corrupted", func(t *testing.T) { corrupted(t, c) })
	c.Stop()
}

// forgive clears earlier failures, as a user's start does (A8), so that one test does not push the next into
// a hold.
func forgive(t *testing.T, c *harness.Companion) messages.Status {
	t.Helper()
	c.Must("start")
	return await(t, c, "available", againWithin, available)
}

// A5, A8, T10, L8: a runtime that is killed or paused makes inference unavailable within the bound at a
// watcher; an open stream ends with an error event, within a second after a kill; and the runtime is replaced
// without a request.
func lost(t *testing.T, c *harness.Companion, signal syscall.Signal, streaming bool, within time.Duration) {
	before := forgive(t, c)
	w := follow(t, c)
	defer w.Close()
	w.await("available", againWithin, available)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var stream *harness.Stream
	if streaming {
		// Each request is different: one that ended the runtime is refused (R11).
		if stream = c.Door().Stream(ctx, 1500+int(signal)); stream.Status != 200 {
			t.Fatalf("got stream %v, want 200", stream)
		}
	}
	hit := time.Now()
	if err := syscall.Kill(before.Runtime.PID, signal); err != nil {
		t.Fatal(err)
	}
	gone := w.await("unavailable", within, unavailable)
	t.Logf("unavailable after %v: %s", time.Since(hit).Round(time.Microsecond), gone.Reason)
	if stream != nil {
		ended(t, stream, 20*time.Second)
		took := stream.At.Sub(hit)
		t.Logf("the stream ended after %v: %v", took.Round(time.Millisecond), stream)
		if !stream.Failed || stream.Done {
			t.Errorf("got stream %v, want a final error event", stream)
		}
		if signal == syscall.SIGKILL && took > time.Second {
			t.Errorf("the stream ended %v after the runtime, want at most a second", took)
		}
	}
	w.await("available again", againWithin, available)
	after, _ := probe(t, c)
	t.Logf("available again after %v", time.Since(hit).Round(time.Millisecond))
	r := after.Runtime
	if r.Restarts != before.Runtime.Restarts+1 || r.PID == before.Runtime.PID || harness.Alive(before.Runtime.PID) {
		t.Errorf("got runtime %+v afterwards, %+v before, want another process and one restart", r, before.Runtime)
	}
	// A paused runtime gets the polite signal too, and may end by it.
	if r.LastExit == nil || signal == syscall.SIGKILL && (r.LastExit.Signal != "killed" || r.LastExit.Reason != messages.ReasonProcessExited) ||
		signal == syscall.SIGSTOP && r.LastExit.Reason != messages.ReasonRuntimeUnavailable {
		t.Errorf("got last exit %+v, want killed with process_exited, or runtime_unavailable for a paused runtime", r.LastExit)
	}
	answers(t, c)
}

// A3, A4, T10: a runtime that does not become healthy is not available, and is replaced after the
// start deadline.
func slow(t *testing.T, c *harness.Companion) {
	before := forgive(t, c)
	if err := syscall.Kill(before.Runtime.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	next := await(t, c, "starting", againWithin, func(s messages.Status) bool {
		return s.Runtime.PID != 0 && s.Runtime.PID != before.Runtime.PID
	})
	if next.CompanionAvailable {
		t.Fatal("available at once")
	}
	if err := syscall.Kill(next.Runtime.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	replaced := await(t, c, "replaced", againWithin, func(s messages.Status) bool {
		if s.CompanionAvailable && s.Runtime.PID == next.Runtime.PID {
			t.Error("got available with a paused runtime, want unavailable")
		}
		return s.Runtime.PID != 0 && s.Runtime.PID != next.Runtime.PID
	})
	if exit := replaced.Runtime.LastExit; exit == nil || exit.Reason != messages.ReasonStartTimeout {
		t.Errorf("got last exit %+v, want start_timeout", exit)
	}
	await(t, c, "available", againWithin, available)
}

// A8: five failures in five minutes are held, with reason and last lines in status; the user's start
// ends the hold.
func crashLoop(t *testing.T, c *harness.Companion) {
	status := forgive(t, c)
	for kills := 1; kills <= 5; kills++ {
		last := status.Runtime.PID
		if err := syscall.Kill(last, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		status = await(t, c, "started again or held", againWithin, func(s messages.Status) bool {
			// The last runtime had time to write a line.
			started := s.Runtime.PID != 0 && s.Runtime.PID != last && (kills < 4 || s.CompanionAvailable)
			return s.Runtime.Held || started
		})
	}
	exit := status.Runtime.LastExit
	if !status.Runtime.Held || status.CompanionAvailable || status.Reason != messages.ReasonCrashLoop {
		t.Fatalf("after five kills: got held %v, %s, want true, crash_loop and unavailable", status.Runtime.Held, status.Reason)
	}
	if exit == nil || exit.Reason != messages.ReasonProcessExited || exit.Signal != "killed" || len(exit.LastLines) == 0 {
		t.Errorf("got last exit %+v, want process_exited, killed, with its last lines", exit)
	}
	if reply := c.Door().Chat(t.Context(), 1); reply.Status != 503 || reply.Code != string(messages.ReasonNotReady) {
		t.Errorf("a request to a held runtime: got %d %s, want 503 not_ready", reply.Status, reply.Code)
	}
	if r := c.Run("chat", "Hello."); r.Code != 5 {
		t.Errorf("chat ended with %d, want 5: %s", r.Code, r.Stderr)
	}
	forgive(t, c)
	answers(t, c)
}

// M9, T6, T10: a model file that has changed is never started, neither by a restart nor at the next start of
// the daemon, and status has the reason.
func corrupted(t *testing.T, c *harness.Companion) {
	signedIn := forgive(t, c)
	c.Must("logout") // otherwise it is fetched again
	before := await(t, c, "replaced after the sign-out", againWithin, func(s messages.Status) bool {
		return s.CompanionAvailable && s.Runtime.PID != signedIn.Runtime.PID
	})
	flip(t, modelFile(t, c))
	// It answers before the runtime is there, or with the reason if the sign-out has made the daemon look at the file first.
	if r := c.Run("restart"); r.Code != 0 && (r.Code != 6 || !strings.Contains(r.Stderr, string(messages.ReasonDigestMismatch))) {
		t.Errorf("restart: got exit status %d, %s, want 0, or 6 and digest_mismatch", r.Code, r.Stderr)
	}
	status := await(t, c, "refused", againWithin, func(s messages.Status) bool {
		return !s.CompanionAvailable && s.Reason == messages.ReasonDigestMismatch
	})
	if status.Facts.Verified || status.Runtime.PID != 0 || harness.Alive(before.Runtime.PID) {
		t.Errorf("got facts %+v and runtime %+v, want none verified and none running", status.Facts, status.Runtime)
	}
	if running := c.Runtimes(); len(running) != 0 {
		t.Errorf("got runtimes %v, want none", running)
	}
}

// modelFile is the only large file in the companion's models.
func modelFile(t *testing.T, c *harness.Companion) string {
	t.Helper()
	for _, file := range c.Files(c.Data()) {
		if info, err := os.Stat(file); err == nil && info.Size() > 100<<20 && strings.Contains(file, "models") {
			return file
		}
	}
	t.Fatal("there is no model")
	return ""
}

// flip changes one bit in the middle of a file, in place.
func flip(t *testing.T, path string) {
	t.Helper()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	at := info.Size() / 2
	if _, err := file.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := file.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}
