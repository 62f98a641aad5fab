package supply

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"companion/e2e/harness"
	"companion/messages"
)

// realPair is a hub of its own that offers the real model and runtime as version 1, and a companion that serves them.
func realPair(t *testing.T) (*harness.Hub, *harness.Companion) {
	t.Helper()
	parts := harness.Parts(t)
	hub := harness.NewHub(t)
	hub.Publish("model", harness.ModelName, parts.Model.File, "--version", "1", "--default")
	hub.Publish("runtime", harness.RuntimeName, parts.Runtime.File, "--version", "1", "--default")
	c := hub.Companion("")
	c.Start()
	c.SignIn()
	c.Available()
	return hub, c
}

// inertModel publishes a newer version of the model, which no runtime can load.
func inertModel(t *testing.T, hub *harness.Hub) {
	t.Helper()
	file := filepath.Join(harness.TempDir(t), "newer.gguf")
	if err := os.WriteFile(file, []byte("GGUF"+strings.Repeat("newer model ", 20_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	hub.Publish("model", harness.ModelName, file, "--version", "2", "--default")
}

// serves checks that version 1 answers.
func serves(t *testing.T, c *harness.Companion, when string) {
	t.Helper()
	status, _ := c.Status()
	if !status.CompanionAvailable || status.Model.Version != "1" {
		t.Fatalf("%s: available %t with version %q, reason %s; want version 1 available", when, status.CompanionAvailable, status.Model.Version, status.Reason)
	}
	if reply := c.Door().Chat(t.Context(), 4); reply.Status != 200 {
		t.Fatalf("%s: got %d %q, %v, want 200", when, reply.Status, reply.Body, reply.Err)
	}
}

// M12, M13, T6: whatever is wrong with a newer model, the verified one serves: before and after a restart of the
// daemon, and offline after a kill.
func TestNewerModelFails(t *testing.T) {
	hub, c := realPair(t)
	inertModel(t, hub)
	for _, c2 := range []struct {
		fault  string
		code   int
		reason messages.Reason // in the log; empty: any
	}{
		{"flipped-byte", 6, messages.ReasonDigestMismatch},
		{"truncated", 6, messages.ReasonSizeMismatch},
		{"wrong-digest", 6, messages.ReasonDigestMismatch},
		{"redirect-elsewhere", 6, messages.ReasonSourceNotAllowed},
		{"artifact-missing", 1, messages.ReasonBadStatus},
	} {
		hub.Fault(c2.fault, true)
		if code, got := pull(t, c); code != c2.code {
			t.Errorf("%s: pull ends with %d, status says %s; want %d", c2.fault, code, got, c2.code)
		}
		if !logged(c, "mirror left out", string(c2.reason)) {
			t.Errorf("%s: the log does not name the mirror, want it with %s", c2.fault, c2.reason)
		}
		serves(t, c, c2.fault)
		hub.Fault(c2.fault, false)
	}
	// A restart in the middle of the upgrade.
	hub.Fault("artifact-missing", true)
	c.Stop()
	c.Start()
	c.Available()
	serves(t, c, "after a restart")
	// Offline, and killed.
	hub.Fault("server-error", true)
	c.Daemon.Kill()
	c.Start()
	c.Available()
	serves(t, c, "killed and offline")
	hub.Fault("server-error", false)
	// The newer model arrives, and cannot be loaded: the verified one comes back, and stays after a restart.
	hub.Fault("artifact-missing", false)
	if code, got := pull(t, c); code != 0 {
		t.Fatalf("pull ends with %d, status says %s; want 0", code, got)
	}
	c.Await("the failed upgrade", time.Minute, func(messages.Status) bool { return logged(c, "newer artifacts did not become ready") })
	c.Available()
	serves(t, c, "after a failed upgrade")
	c.Daemon.Kill()
	c.Start()
	watch := c.Watch()
	defer watch.Close()
	watch.Await("version 1", harness.AvailableWithin, func(s messages.Status) bool { return s.CompanionAvailable && s.Model.Version == "1" })
}

// M1, M13: what answers for the hub for a while (401, a web page) costs nothing: the model serves, the reason and the
// time of the next try are in the status, and refreshing resumes without a command.
func TestRefreshTrouble(t *testing.T) {
	hub := harness.NewHub(t)
	hub.PublishSmall()
	c := hub.Companion("")
	c.Start()
	if code, got := pulled(t, c); code != 0 {
		t.Fatalf("pull: got exit %d, status %s, want 0", code, got)
	}
	for fault, want := range map[string]struct {
		code   int
		reason messages.Reason
	}{
		"refused-token": {4, messages.ReasonSignInNeeded},
		"web-page":      {1, messages.ReasonManifestUnreachable},
		"server-error":  {1, messages.ReasonManifestUnreachable},
	} {
		hub.Fault(fault, true)
		if code, got := pull(t, c); code != want.code || !slices.Contains(got, want.reason) {
			t.Errorf("%s: pull ends with %d, status says %s; want %d, %s", fault, code, got, want.code, want.reason)
		}
		status, _ := c.Status()
		if !status.Facts.Verified || status.Manifest.RetryAt == nil || time.Until(*status.Manifest.RetryAt) > 11*time.Minute {
			t.Errorf("%s: verified %t, next try %v; want verified and a next try", fault, status.Facts.Verified, status.Manifest.RetryAt)
		}
		hub.Fault(fault, false)
		c.Await("refreshed after "+fault, 2*time.Minute, func(s messages.Status) bool {
			return (s.Manifest.Reason == "" || s.Manifest.Reason == messages.ReasonOK) && s.Manifest.RetryAt == nil
		})
	}
}

// A8: a runtime without one of its libraries is held at once, and the status names the library.
func TestLibraryMissing(t *testing.T) {
	parts := harness.Parts(t)
	hub := harness.NewHub(t)
	hub.Publish("model", harness.ModelName, parts.Model.File, "--version", "1", "--default")
	removed, file := without(t, parts.Runtime.File, "libllama.so")
	hub.Publish("runtime", harness.RuntimeName, file, "--version", "1", "--default")
	c := hub.Companion("")
	c.Start()
	c.SignIn()
	got := c.Await("held", time.Minute, func(s messages.Status) bool { return s.Runtime.LastExit != nil })
	if got.Reason != messages.ReasonLibraryMissing || !got.Runtime.Held || got.Runtime.Restarts != 1 {
		t.Errorf("reason %s, held %t after %d failures; want library_missing, held after one", got.Reason, got.Runtime.Held, got.Runtime.Restarts)
	}
	if lines := strings.Join(got.Runtime.LastExit.LastLines, "\n"); !strings.Contains(lines, removed) {
		t.Errorf("the last lines do not name %s, want it: %s", removed, lines)
	}
}

// without copies a runtime archive without the entries whose base name begins with prefix, and returns the one that
// programs are linked to.
func without(t *testing.T, source, prefix string) (removed, path string) {
	t.Helper()
	in, err := os.Open(source)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	gz, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(harness.TempDir(t), "without.tar.gz")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	compressed := gzip.NewWriter(file)
	out, entries := tar.NewWriter(compressed), tar.NewReader(gz)
	for {
		header, err := entries.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if base := filepath.Base(header.Name); strings.HasPrefix(base, prefix) {
			if removed == "" || len(base) < len(removed) {
				removed = base
			}
			continue
		}
		if err := out.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(out, entries); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(out.Close(), compressed.Close(), file.Close()); err != nil {
		t.Fatal(err)
	}
	if removed == "" {
		t.Fatalf("got an archive without %s, want it", prefix)
	}
	return removed, path
}

// M9, M10: a library of the runtime that has a wrong bit does not run. The runtime is fetched again and serves, without a command.
func TestRottenRuntimeHeals(t *testing.T) {
	_, c := realPair(t)
	before, _ := c.Status()
	libraries, err := filepath.Glob(filepath.Join(c.Data(), "runtimes", "*", "*", "libllama.so*"))
	if err != nil {
		t.Fatal(err)
	}
	rotten := 0
	for _, library := range libraries {
		if info, err := os.Lstat(library); err == nil && info.Mode().IsRegular() {
			flip(t, library)
			if err := os.Chmod(library, info.Mode().Perm()); err != nil {
				t.Fatal(err)
			}
			rotten++
		}
	}
	if rotten == 0 {
		t.Fatalf("got no library of %v altered, want one", libraries)
	}
	if err := syscall.Kill(before.Runtime.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	status := c.Await("serving again", harness.AvailableWithin, func(s messages.Status) bool {
		return s.CompanionAvailable && s.Runtime.PID != before.Runtime.PID
	})
	if !logged(c, "artifact on disk is wrong, fetching it again", harness.RuntimeName, string(messages.ReasonDigestMismatch)) {
		t.Error("the log does not say that the runtime was wrong and is fetched again, want it")
	}
	if status.Runtime.Held {
		t.Errorf("got %+v, want not held", status.Runtime)
	}
	serves(t, c, "after the repair")
}
