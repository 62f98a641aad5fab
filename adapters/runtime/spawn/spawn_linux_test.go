package spawn_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"companion/adapters/lowlatency"
	"companion/adapters/runtime/spawn"
	"companion/adapters/runtime/spawn/spawntest"
	"companion/messages"
)

func awaitHealthy(t *testing.T, s spawn.Started) {
	t.Helper()
	var err error
	defer func() {
		if t.Failed() {
			t.Log(err)
		}
	}()
	within(t, 10*time.Second, "a healthy answer", func() bool {
		err = spawn.Health(t.Context(), s.BackEnd, s.Handle.PID())
		return err == nil
	})
}

// C1, C3, R2: a real child, started while the daemon's environment and descriptors hold secrets, has its own environment,
// arguments, descriptors and limits.
func TestChildInheritsNothing(t *testing.T) {
	const secret = "planted-secret-f3b1"
	for _, name := range []string{
		"OPENAI_API_KEY", "LLAMA_ARG_MODEL", "LLAMA_CACHE", "AIP_PREDICT_ROUTE", "LD_PRELOAD_NOT", "HTTPS_PROXY", "HF_TOKEN",
		"SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "NOTIFY_SOCKET", "GODEBUG_NOT", "COMPANION_HUB_URL", "LC_SECRET ", "XDG_RUNTIME_DIR",
	} {
		t.Setenv(strings.TrimSpace(name), secret+"/x")
	}
	t.Setenv("LANG", "de_DE.UTF-8")
	open, err := os.Create(filepath.Join(t.TempDir(), secret))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = open.Close() }()
	if err := clearCloseOnExec(open); err != nil {
		t.Fatal(err)
	}

	spec := spawntest.Spec(t, map[string]any{"serve": true})
	started := start(t, spec)
	awaitHealthy(t, started)
	proc := fmt.Sprintf("/proc/%d/", started.Handle.PID())

	environment := readProc(t, proc+"environ")
	names := []string{}
	for entry := range strings.SplitSeq(strings.TrimRight(environment, "\x00"), "\x00") {
		name, _, _ := strings.Cut(entry, "=")
		if name != "LANG" && !strings.HasPrefix(name, "LC_") {
			names = append(names, name)
		}
	}
	if !slices.Equal(names, []string{"HOME", "TMPDIR"}) || !strings.Contains(environment, "LANG=de_DE.UTF-8\x00") || strings.Contains(environment, secret) {
		t.Errorf("got the environment %q, want only HOME, TMPDIR and the locale", environment)
	}
	arguments := readProc(t, proc+"cmdline")
	for _, hidden := range []string{secret, spec.Model.Path, spec.Runtime.Dir, fmt.Sprintf("%x", spec.Model.SHA256)} {
		if strings.Contains(arguments, hidden) {
			t.Errorf("got the arguments %q, want none with %q", arguments, hidden)
		}
	}
	if !strings.Contains(arguments, "--alias\x00"+spawntest.Name+"\x00") {
		t.Errorf("got the arguments %q, want the model's name as --alias", arguments)
	}
	checkDescriptors(t, proc, spec.Model.Path)

	status := readProc(t, proc+"status")
	for _, line := range []string{"Umask:\t0177", "NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000",
		fmt.Sprintf("NSpgid:\t%d", started.Handle.PID()), fmt.Sprintf("NSsid:\t%d", started.Handle.PID())} {
		if !strings.Contains(status, line+"\n") {
			t.Errorf("got a process status without %q, want it", line)
		}
	}
	limits := readProc(t, proc+"limits")
	for _, want := range []string{"Max core file size        0                    0 ", "Max open files            1024                 1024 ", "Max file size             0                    0 "} {
		if !strings.Contains(limits, want) {
			t.Errorf("got limits without %q, want it:\n%s", want, limits)
		}
	}
	if cwd, err := os.Readlink(proc + "cwd"); err != nil || cwd != "/" {
		t.Errorf("got the working folder %q, %v, want /", cwd, err)
	}
}

func clearCloseOnExec(f *os.File) error {
	_, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), syscall.F_SETFD, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func readProc(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// checkDescriptors checks the child's descriptors: the standard three, the model, and those that it opened itself.
func checkDescriptors(t *testing.T, proc, model string) {
	t.Helper()
	entries, err := os.ReadDir(proc + "fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		target, err := os.Readlink(proc + "fd/" + entry.Name())
		if err != nil {
			continue // closed meanwhile
		}
		want := map[string]string{"0": "/dev/null", "1": "pipe:", "2": "pipe:", "3": model}[entry.Name()]
		own := strings.HasPrefix(target, "anon_inode:[event") || strings.HasPrefix(target, "socket:")
		if want != "" && !strings.HasPrefix(target, want) || want == "" && !own {
			t.Errorf("got descriptor %s of %s, want one of the child's own", entry.Name(), target)
		}
	}
}

// R3: the socket is private, and Health accepts only the child behind it.
func TestBackEndIsTheChild(t *testing.T) {
	started := start(t, spawntest.Spec(t, map[string]any{"serve": true}))
	awaitHealthy(t, started)
	info, err := os.Lstat(started.BackEnd.Address)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("got the socket %v, %v, want mode 0600", info, err)
	}
	folder, err := os.Lstat(filepath.Dir(started.BackEnd.Address))
	if err != nil || folder.Mode() != os.ModeDir|0o700 {
		t.Errorf("got the folder %v, %v, want mode 0700", folder, err)
	}
	refused := func(what string, err error) {
		t.Helper()
		var typed *spawn.Error
		if !errors.Is(err, spawn.ErrNotOurChild) || !errors.As(err, &typed) || typed.Reason != messages.ReasonBackendUnreachable {
			t.Errorf("%s: got %v, want %v", what, err, spawn.ErrNotOurChild)
		}
	}
	refused("another process expected", spawn.Health(t.Context(), started.BackEnd, os.Getpid()))
	if err := os.Chmod(started.BackEnd.Address, 0o660); err != nil {
		t.Fatal(err)
	}
	refused("an open socket", spawn.Health(t.Context(), started.BackEnd, started.Handle.PID()))
}

// R3, T7: another process that answers on the same path is sent no request.
func TestImpostor(t *testing.T) {
	started := start(t, spawntest.Spec(t, nil))
	if err := os.Remove(started.BackEnd.Address); err != nil {
		t.Fatal(err)
	}
	old := syscall.Umask(0o177)
	listener, err := net.Listen("unix", started.BackEnd.Address)
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{}, 1)
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked <- struct{}{} })}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	if err := spawn.Health(t.Context(), started.BackEnd, started.Handle.PID()); !errors.Is(err, spawn.ErrNotOurChild) {
		t.Errorf("got %v, want %v", err, spawn.ErrNotOurChild)
	}
	_ = server.Close()
	<-served
	if len(asked) > 0 {
		t.Error("got a request at the impostor, want none")
	}
}

// R8: output is bounded in lines and length, and contains neither paths nor digests.
func TestOutputIsBoundedAndScrubbed(t *testing.T) {
	spec := spawntest.Spec(t, nil)
	digest := strings.Repeat("0123456789abcdef", 4)
	spec.Model = spawntest.Model(t, map[string]any{
		"flood": 3000, "floodBytes": 4000, "exitAfter": time.Millisecond,
		"say": []string{"begin", "loading " + spec.Runtime.Dir + "/hostile", "sha256 " + digest, "open /home/somebody/models/x.gguf failed", "50.0 tokens/s"},
	})
	var output lines
	spec.Line = output.add
	started := start(t, spec)
	exit := <-started.Exit
	for _, want := range []string{"begin", "loading [path]/hostile", "sha256 [digest]", "open [path] failed", "50.0 tokens/s"} {
		if !slices.Contains(output.all, want) {
			t.Errorf("got output without %q, want it", want)
		}
	}
	if len(exit.LastLines) == 0 || len(exit.LastLines) > 100 {
		t.Errorf("got %d lines, want 1 to 100", len(exit.LastLines))
	}
	for _, line := range append(exit.LastLines, output.all...) {
		if len(line) > 1024 || strings.Contains(line, spec.Runtime.Dir) || strings.Contains(line, digest) || strings.Contains(line, "/home/") {
			t.Fatalf("got the line %q, want at most 1024 bytes without paths and digests", line)
		}
	}
	if len(output.all) < 3000 {
		t.Errorf("got %d lines, want 3000 or more", len(output.all))
	}
}

// R5, R6: after the exit no process, no socket and no record is left.
func TestNothingIsLeft(t *testing.T) {
	spec := spawntest.Spec(t, map[string]any{"serve": true})
	started := start(t, spec)
	awaitHealthy(t, started)
	if _, err := os.Stat(spec.RecordPath); err != nil {
		t.Error(err)
	}
	started.Handle.Kill(context.Background(), 5*time.Second)
	if exit := <-started.Exit; exit.Signal != "terminated" || exit.Code != -1 {
		t.Errorf("got %+v, want SIGTERM", exit)
	}
	if err := syscall.Kill(started.Handle.PID(), 0); err != syscall.ESRCH {
		t.Errorf("got %v for the process, want it gone", err)
	}
	entries, err := os.ReadDir(spec.RunDir)
	if err != nil || len(entries) > 0 {
		t.Errorf("got %v, %v left, want nothing", entries, err)
	}
	started.Handle.Kill(context.Background(), time.Hour) // a second, late call has no effect
}

// R2, R15: a runtime in the background has a lower priority and a longer time slice than the user's other programs.
func TestRuntimePriority(t *testing.T) {
	own, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	spec := spawntest.Spec(t, map[string]any{"serve": true})
	spec.Background = true
	pid := start(t, spec).Handle.PID()
	got, err := unix.SchedGetAttr(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got.Nice != own.Nice+5 {
		t.Errorf("niceness: got %d, want %d", got.Nice, own.Nice+5)
	}
	if own.Runtime != 0 && got.Runtime != uint64(10*time.Millisecond) { // a kernel before 6.12 has 0
		t.Errorf("time slice: got %d ns, want %v", got.Runtime, 10*time.Millisecond)
	}
	session, err := os.ReadFile(fmt.Sprintf("/proc/%d/autogroup", pid))
	if errors.Is(err, fs.ErrNotExist) || os.Geteuid() != 0 {
		t.Skip("not proven: no autogroups here, or the kernel limits changes of them to ten a second")
	}
	if !strings.HasSuffix(string(session), " nice 5\n") {
		t.Errorf("autogroup: got %q, %v; want niceness 5", session, err)
	}
}

// R15: with the normal priority the runtime has the niceness of the daemon, and the longer time slice, so that programs
// that wake still come first.
func TestRuntimePriorityNormal(t *testing.T) {
	own, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	got, err := unix.SchedGetAttr(start(t, spawntest.Spec(t, map[string]any{"serve": true})).Handle.PID(), 0)
	if err != nil || got.Nice != own.Nice {
		t.Errorf("niceness: got %d, %v; want %d", got.Nice, err, own.Nice)
	}
	if own.Runtime != 0 && got.Runtime != uint64(10*time.Millisecond) {
		t.Errorf("time slice: got %d ns, want %v", got.Runtime, 10*time.Millisecond)
	}
}

// With runtime.low_latency = false the runtime keeps the daemon's priority and time slice.
func TestRuntimePriorityOff(t *testing.T) {
	lowlatency.SetEnabled(false)
	defer lowlatency.SetEnabled(true)
	own, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	got, err := unix.SchedGetAttr(start(t, spawntest.Spec(t, map[string]any{"serve": true})).Handle.PID(), 0)
	if err != nil || got.Nice != own.Nice || got.Runtime != own.Runtime {
		t.Errorf("got niceness %d and slice %d ns, %v; want %d and %d", got.Nice, got.Runtime, err, own.Nice, own.Runtime)
	}
}
