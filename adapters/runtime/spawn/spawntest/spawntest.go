//go:build linux

// Package spawntest gives tests a scripted runtime instead of llama-server: e2e/hostile, built once per test binary. It
// is only for tests.
package spawntest

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"companion/adapters/runtime/fileid"
	"companion/adapters/runtime/spawn"
	"companion/messages"
)

// Name is the manifest name of the model that Spec serves.
const Name = "test-model"

// prebuilt is the environment variable with a folder that contains the hostile runtime, for machines without a compiler
// (e2e/emulate).
const prebuilt = "SPAWNTEST_RUNTIME"

var built struct {
	sync.Once
	dir string
	own bool // to be removed
	err error
}

// Main is the TestMain of a package that spawns: it runs as the helper stage when started as one, checks for leaked
// goroutines at the end, and removes the program that it built.
func Main(m *testing.M) {
	if spawn.IsStage() {
		spawn.StageMain()
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if built.own {
			_ = os.RemoveAll(built.dir)
		}
		os.Exit(code)
	}))
}

// Runtime returns the hostile runtime, as if the manifest listed it.
func Runtime(t testing.TB) messages.VerifiedRuntime {
	t.Helper()
	built.Do(build)
	if built.err != nil {
		t.Fatal(built.err)
	}
	data, err := os.ReadFile(filepath.Join(built.dir, "hostile"))
	if err != nil {
		t.Fatal(err)
	}
	return messages.VerifiedRuntime{
		Name: "hostile", Version: "1", Dir: built.dir, Executable: "hostile", Pinned: true,
		Files: []messages.ArchiveFile{{
			Path: "hostile", SHA256: sha256.Sum256(data), Size: int64(len(data)), Executable: true,
		}},
	}
}

func build() {
	if built.dir = os.Getenv(prebuilt); built.dir != "" {
		return
	}
	if built.dir, built.err = os.MkdirTemp("", "hostile-"); built.err != nil {
		return
	}
	built.own = true
	cmd := exec.Command("go", "build", "-o", filepath.Join(built.dir, "hostile"), "companion/e2e/hostile")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		built.err = fmt.Errorf("building the hostile runtime: %w\n%s", err, output)
	}
}

// Model returns a file that contains the script, as a verified model. The keys are those of e2e/hostile.Script.
func Model(t testing.TB, script map[string]any) messages.VerifiedModel {
	t.Helper()
	data, err := json.Marshal(script)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "model.gguf")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	id, err := fileid.Of(f)
	if err != nil {
		t.Fatal(err)
	}
	return messages.VerifiedModel{
		Name: Name, Version: "1", Path: path, Identity: id, SHA256: sha256.Sum256(data),
	}
}

// Spec returns a start of the hostile runtime with the script, confined, in folders of this test.
func Spec(t testing.TB, script map[string]any) spawn.Spec {
	t.Helper()
	dir := Dir(t)
	return spawn.Spec{
		Model: Model(t, script), Runtime: Runtime(t),
		RunDir: dir, RecordPath: filepath.Join(dir, "runtime.json"),
		Context: 512, MaxInFlight: 1, Sandbox: spawn.Require,
	}
}

// Dir returns a private folder whose path is short enough for a socket.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "run-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
