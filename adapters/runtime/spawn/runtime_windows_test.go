package spawn

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"
	"golang.org/x/sys/windows"

	"companion/adapters/runtime/fileid"
	"companion/messages"
)

// daemonEnv makes this test binary a daemon that starts one runtime; its value is a daemonPlan.
const daemonEnv = "SPAWN_TEST_DAEMON"

type daemonPlan struct {
	Model              messages.VerifiedModel
	Runtime            messages.VerifiedRuntime
	RunDir, RecordPath string
}

// TestMain also runs as the runtime, when its arguments are those of llama-server.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "--alias":
		beRuntime()
	case os.Getenv(daemonEnv) != "":
		beDaemon()
	}
	goleak.VerifyTestMain(m)
}

// script says what the runtime does. Its model file contains it.
type script struct {
	Exit  *int // ends at once, with this status
	Serve bool // answers on its back end
}

// seen is written by the runtime into a file next to its model, because its output is scrubbed.
type seen struct {
	Args, Env []string
	InJob     bool
	Child     string // the error of starting another program
}

func beRuntime() {
	argument := func(name string) string { return os.Args[slices.Index(os.Args, name)+1] }
	var s script
	data, err := os.ReadFile(argument("--model"))
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		panic(err)
	}
	if s.Exit != nil {
		os.Exit(*s.Exit)
	}
	self := seen{Args: os.Args, Env: os.Environ(), InJob: inJob()}
	if err := exec.Command(os.Args[0], "-test.run=^$").Run(); err != nil {
		self.Child = "refused"
	}
	if data, err = json.Marshal(self); err == nil {
		err = os.WriteFile(argument("--model")+".seen", data, 0o600)
	}
	if err != nil {
		panic(err)
	}
	if !s.Serve {
		fmt.Println("ready")
		time.Sleep(time.Hour) // until it is killed; a Go program that only blocks would report a deadlock
	}
	listener, err := net.Listen("tcp4", net.JoinHostPort(argument("--host"), argument("--port")))
	if err != nil {
		panic(err)
	}
	fmt.Println("ready")
	panic(http.Serve(listener, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
}

func inJob() bool {
	var in int32
	call := windows.NewLazySystemDLL("kernel32.dll").NewProc("IsProcessInJob")
	ok, _, _ := call.Call(uintptr(windows.CurrentProcess()), 0, uintptr(unsafe.Pointer(&in)))
	return ok != 0 && in != 0
}

func beDaemon() {
	var p daemonPlan
	if err := json.Unmarshal([]byte(os.Getenv(daemonEnv)), &p); err != nil {
		panic(err)
	}
	started, err := Spawn(Spec{
		Model: p.Model, Runtime: p.Runtime, RunDir: p.RunDir, RecordPath: p.RecordPath,
		Context: 512, MaxInFlight: 1, Sandbox: Prefer,
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(started.Handle.PID())
	<-started.Exit
}

// specFor returns a pinned copy of this test binary as the runtime, with the script as its model.
func specFor(t *testing.T, s script) Spec {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	must(err)
	binary, err := os.ReadFile(self)
	must(err)
	dir := t.TempDir()
	for _, name := range []string{"runtime", "run"} {
		must(os.Mkdir(filepath.Join(dir, name), 0o700))
	}
	must(os.WriteFile(filepath.Join(dir, "runtime", "llama-server.exe"), binary, 0o700))
	data, err := json.Marshal(s)
	must(err)
	model := filepath.Join(dir, "model.gguf")
	must(os.WriteFile(model, data, 0o600))
	f, err := os.Open(model)
	must(err)
	id, err := fileid.Of(f)
	must(errors.Join(err, f.Close()))
	return Spec{
		Model: messages.VerifiedModel{Name: "test-model", Path: model, Identity: id},
		Runtime: messages.VerifiedRuntime{
			Name: "runtime", Dir: filepath.Join(dir, "runtime"), Executable: "llama-server.exe", Pinned: true,
			Files: []messages.ArchiveFile{{Path: "llama-server.exe", SHA256: sha256.Sum256(binary), Size: int64(len(binary)), Executable: true}},
		},
		RunDir: filepath.Join(dir, "run"), RecordPath: filepath.Join(dir, "record.json"),
		Context: 512, MaxInFlight: 1, MemoryLimit: 1 << 30, Sandbox: Prefer,
	}
}

// run starts the runtime, waits until it is ready, and returns what it saw.
func run(t *testing.T, spec Spec) (Started, seen) {
	t.Helper()
	said := make(chan string, 16)
	spec.Line = func(line string) {
		select {
		case said <- line:
		default:
		}
	}
	started, err := Spawn(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { started.Handle.Kill(context.Background(), 0) })
	select {
	case line := <-said:
		if line != "ready" {
			t.Fatalf("got %q from the runtime, want ready", line)
		}
	case exit := <-started.Exit:
		t.Fatalf("got the exit %+v, want a ready runtime", exit)
	}
	var s seen
	data, err := os.ReadFile(spec.Model.Path + ".seen")
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return started, s
}

// wine reports whether the test runs under Wine, which keeps a job together and ends it with its last handle, but neither
// reports nor enforces the limits of a job.
func wine() bool {
	return windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil
}
