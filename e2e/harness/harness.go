// Package harness runs the built programs for the end-to-end tests: a development hub, and companions with their own
// folders, keychain service and environment. Tests see what a user or a script sees: output, exit codes, files, processes,
// sockets.
//
// A process that a test starts here ends with the test, or with the test binary. When a test fails, the ends of all logs
// are printed.
package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"companion/adapters/lowlatency"
	"companion/e2e/fixtures/fixture"
)

// Names in the manifest of a Hub.
const (
	ModelName   = "gemma-3-270m"
	RuntimeName = "llama-server"
	User        = "ada"
)

// Main runs the tests, and removes the folders that they shared.
func Main(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if shared != "" {
			removeTree(shared)
		}
		os.Exit(code)
	}))
}

// Tags are the build tags of the programs; set them before Main. "faults" makes actors fail on demand.
var Tags string

// shared is the folder of files that are created once for all tests of a test binary.
var shared string

var sharedDir = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		panic(fmt.Sprintf("making the folder of the end-to-end tests: %v", err))
	}
	shared = dir
	return dir
})

// build builds both programs, without the low-latency measures if this test binary has none. Under the race detector it
// also builds a second companion for the daemons: a command that lives one second shows no race, and would take one second
// longer to start.
var build = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(sharedDir(), "bin")
	builds := [][]string{{"-o", dir + "/", "companion/cmd/companion", "companion/cmd/devhub"}}
	if RaceBuilt {
		builds = append(builds, []string{"-race", "-o", filepath.Join(dir, "race") + "/", "companion/cmd/companion"})
	}
	flags := []string{"build", "-tags", Tags}
	if without := lowlatency.Without(); without != "" {
		flags = append(flags, "-ldflags", "-X companion/adapters/lowlatency.without="+without)
	}
	for _, args := range builds {
		if out, err := exec.Command("go", append(flags, args...)...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("building the programs: %w\n%s", err, out)
		}
	}
	return dir, nil
})

// Binary returns the path of "companion" or "devhub".
func Binary(t testing.TB, name string) string {
	t.Helper()
	dir, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// daemonBinary returns the companion that runs as the daemon.
func daemonBinary(t testing.TB) string {
	if RaceBuilt {
		return Binary(t, "race/companion")
	}
	return Binary(t, "companion")
}

var fetch = sync.OnceValues(func() (fixture.Parts, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	return fixture.Fetch(ctx, os.Stderr)
})

// Parts returns the real runtime and model.
func Parts(t testing.TB) fixture.Parts {
	t.Helper()
	parts, err := fetch()
	if err != nil {
		t.Fatalf("fetching the real runtime and model: %v", err)
	}
	return parts
}

var fetchInstructed = sync.OnceValues(func() (fixture.Part, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	return fixture.FetchInstructed(ctx, os.Stderr)
})

// Instructed returns the instructed model, for tests in which an answer must make sense.
func Instructed(t testing.TB) fixture.Part {
	t.Helper()
	model, err := fetchInstructed()
	if err != nil {
		t.Fatalf("fetching the instructed model: %v", err)
	}
	return model
}

// TempDir is like t.TempDir with a path that is short enough for sockets. It also removes the files that the companion made
// read-only (M12).
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "c-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeTree(dir) })
	return dir
}

func removeTree(dir string) {
	_ = filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	_ = os.RemoveAll(dir)
}
