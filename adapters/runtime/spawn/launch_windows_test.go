package spawn

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// R2, R4, R5: the configured limits are set on the job.
func TestJobLimits(t *testing.T) {
	if wine() {
		t.Skip("Wine does not report the limits")
	}
	const always = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | windows.JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION |
		windows.JOB_OBJECT_LIMIT_ACTIVE_PROCESS
	for memory, flags := range map[int64]uint32{0: always, 1 << 30: always | windows.JOB_OBJECT_LIMIT_JOB_MEMORY} {
		job, err := newJob(memory)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = windows.CloseHandle(job) }()
		var limits windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION
		if err := windows.QueryInformationJobObject(job, windows.JobObjectExtendedLimitInformation,
			uintptr(unsafe.Pointer(&limits)), uint32(unsafe.Sizeof(limits)), nil); err != nil {
			t.Fatal(err)
		}
		basic := limits.BasicLimitInformation
		if basic.LimitFlags != flags || basic.ActiveProcessLimit != 1 || limits.JobMemoryLimit != uintptr(memory) {
			t.Errorf("memory %d: got flags %#x, processes %d, memory %d, want %#x, 1 and the given memory", memory, basic.LimitFlags, basic.ActiveProcessLimit, limits.JobMemoryLimit, flags)
		}
	}
}

// R2: the child starts suspended, so that none of its code runs outside its job.
func TestStartsSuspended(t *testing.T) {
	zero := 0
	p, err := prepare(specFor(t, script{Exit: &zero}))
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	cmd := p.suspended(os.Stderr)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if suspended := resumeOnlyThread(t, uint32(cmd.Process.Pid)); suspended != 1 {
		t.Errorf("got a suspend count of %d, want 1", suspended)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// resumeOnlyThread resumes the only thread of a process and returns its earlier suspend count.
func resumeOnlyThread(t *testing.T, pid uint32) uint32 {
	t.Helper()
	snapshot, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPTHREAD, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = windows.CloseHandle(snapshot) }()
	var threads []uint32
	entry := windows.ThreadEntry32{Size: uint32(unsafe.Sizeof(windows.ThreadEntry32{}))}
	for err = windows.Thread32First(snapshot, &entry); err == nil; err = windows.Thread32Next(snapshot, &entry) {
		if entry.OwnerProcessID == pid {
			threads = append(threads, entry.ThreadID)
		}
	}
	if len(threads) != 1 {
		t.Fatalf("got %d threads, want 1", len(threads))
	}
	thread, err := windows.OpenThread(windows.THREAD_SUSPEND_RESUME, false, threads[0])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = windows.CloseHandle(thread) }()
	before, err := windows.ResumeThread(thread)
	if err != nil {
		t.Fatal(err)
	}
	return before
}

// C3, R1, R2, R3: the child is in a job, starts no other program, and has only the planned arguments and environment.
func TestChildInheritsNothing(t *testing.T) {
	const secret = "planted-secret-f3b1"
	for _, name := range []string{"OPENAI_API_KEY", "LLAMA_ARG_MODEL", "HTTPS_PROXY", "PATH_NOT", "COMPANION_HUB_URL"} {
		t.Setenv(name, secret)
	}
	t.Setenv("LANG", "de_DE.UTF-8")
	t.Setenv("LC_ALL", secret+"/x")
	spec := specFor(t, script{})
	started, s := run(t, spec)
	if !s.InJob {
		t.Error("got a child in no job, want it in one")
	}
	if s.Child == "" && !wine() {
		t.Error("got another program started, want it refused")
	}
	var names []string
	for _, entry := range s.Env {
		name, value, _ := strings.Cut(entry, "=")
		if wine() && (strings.HasPrefix(name, "WINE") || name == "SystemDrive" || name == "PROCESSOR_ARCHITECTURE") {
			continue // Wine adds them to every process
		}
		names = append(names, strings.ToUpper(name))
		if strings.Contains(value, secret) {
			t.Errorf("got a secret in the variable %s, want none", name)
		}
	}
	slices.Sort(names)
	if want := []string{"LANG", "SYSTEMROOT", "TEMP", "TMP", "USERPROFILE"}; !slices.Equal(names, want) {
		t.Errorf("got the environment %q, want the variables %q", s.Env, want)
	}
	host, port, _ := net.SplitHostPort(started.BackEnd.Address)
	for _, want := range []string{"--alias test-model", "--host " + host, "--port " + port} {
		if !strings.Contains(strings.Join(s.Args, " ")+" ", want+" ") {
			t.Errorf("got the arguments %q, want %q among them", s.Args, want)
		}
	}
}

// R9: the exit status is reported.
func TestExitStatus(t *testing.T) {
	for _, code := range []int{0, 7} {
		started, err := Spawn(specFor(t, script{Exit: &code}))
		if err != nil {
			t.Fatal(err)
		}
		if exit := <-started.Exit; exit.Code != code || exit.Signal != "" {
			t.Errorf("got %+v, want status %d", exit, code)
		}
	}
}

// R6: Kill does not wait for its grace, and leaves neither process nor file.
func TestKill(t *testing.T) {
	spec := specFor(t, script{})
	started, _ := run(t, spec)
	if _, err := os.Stat(spec.RecordPath); err != nil {
		t.Error(err)
	}
	started.Handle.Kill(t.Context(), time.Hour)
	if exit := <-started.Exit; exit.Code != 1 {
		t.Errorf("got %+v, want status 1", exit)
	}
	entries, err := os.ReadDir(spec.RunDir)
	if _, record := os.Stat(spec.RecordPath); err != nil || len(entries) > 0 || !errors.Is(record, os.ErrNotExist) {
		t.Errorf("got %v, %v left and %v for the record, want nothing left", entries, err, record)
	}
	started.Handle.Kill(t.Context(), time.Hour) // a second, late call has no effect
}

// R2: the child ends when the daemon is killed, because the last handle of the job closes.
func TestDaemonKilled(t *testing.T) {
	spec := specFor(t, script{})
	plan, err := json.Marshal(daemonPlan{spec.Model, spec.Runtime, spec.RunDir, spec.RecordPath})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command(self)
	daemon.Env = append(os.Environ(), daemonEnv+"="+string(plan))
	daemon.Stderr = os.Stderr
	output, err := daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = daemon.Wait() }()
	defer func() { _ = daemon.Process.Kill() }()
	var pid uint32
	if _, err := fmt.Fscan(bufio.NewReader(output), &pid); err != nil {
		t.Fatal(err)
	}
	child, err := windows.OpenProcess(windows.SYNCHRONIZE, false, pid)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = windows.CloseHandle(child) }()
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if event, err := windows.WaitForSingleObject(child, 10_000); event != windows.WAIT_OBJECT_0 {
		t.Errorf("got the wait result %#x, %v, want an ended child", event, err)
	}
}

// R3: each back end has its own loopback port, and a process that does not listen there is not our child.
func TestBackEnd(t *testing.T) {
	started, _ := run(t, specFor(t, script{Serve: true}))
	host, port, err := net.SplitHostPort(started.BackEnd.Address)
	if err != nil || started.BackEnd.Network != "tcp" || host != "127.0.0.1" || port == "0" {
		t.Errorf("got the back end %+v, %v, want a loopback port", started.BackEnd, err)
	}
	if err := Health(t.Context(), started.BackEnd, started.Handle.PID()); err != nil {
		t.Error(err)
	}
	if err := Health(t.Context(), started.BackEnd, os.Getpid()); !errors.Is(err, ErrNotOurChild) {
		t.Errorf("for another process id: got %v, want %v", err, ErrNotOurChild)
	}
}

// R7: Reclaim ends the runtime that the record describes, and leaves a process alone that differs from it.
func TestReclaim(t *testing.T) {
	spec := specFor(t, script{})
	started, _ := run(t, spec)
	data, err := os.ReadFile(spec.RecordPath)
	if err != nil {
		t.Fatal(err)
	}
	other := strings.Replace(string(data), `"startTime":`, `"startTime":1`, 1)
	for _, record := range []string{other, string(data)} {
		if err := os.WriteFile(spec.RecordPath, []byte(record), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		ended, err := Reclaim(ctx, spec.RecordPath, t.TempDir())
		cancel()
		if want := record != other; err != nil || ended != want {
			t.Errorf("got %t, %v; want %t", ended, err, want)
		}
	}
	if exit := <-started.Exit; exit.Code != 1 {
		t.Errorf("got %+v, want status 1", exit)
	}
}
