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

// R2, R4, R5: the limits that were asked for are set on the job.
func TestJobLimits(t *testing.T) {
	if wine() {
		t.Skip("Wine does not tell them")
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
			t.Errorf("memory %d: flags %#x, processes %d, memory %d", memory, basic.LimitFlags, basic.ActiveProcessLimit, limits.JobMemoryLimit)
		}
	}
}

// R2: the child is started suspended, so that nothing of it runs outside its job.
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
		t.Errorf("its thread was suspended %d times", suspended)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// resumeOnlyThread returns how often the only thread of a process was suspended before.
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
		t.Fatalf("it has %d threads", len(threads))
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

// C3, R1, R2, R3: the child is in a job, starts no other program, and has the planned arguments and
// environment and nothing else.
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
		t.Error("it is in no job")
	}
	if s.Child == "" && !wine() {
		t.Error("it could start another program")
	}
	var names []string
	for _, entry := range s.Env {
		name, value, _ := strings.Cut(entry, "=")
		if wine() && (strings.HasPrefix(name, "WINE") || name == "SystemDrive" || name == "PROCESSOR_ARCHITECTURE") {
			continue // it adds them to every process
		}
		names = append(names, strings.ToUpper(name))
		if strings.Contains(value, secret) {
			t.Errorf("environment has %s", name)
		}
	}
	slices.Sort(names)
	if want := []string{"LANG", "SYSTEMROOT", "TEMP", "TMP", "USERPROFILE"}; !slices.Equal(names, want) {
		t.Errorf("environment %q", s.Env)
	}
	host, port, _ := net.SplitHostPort(started.BackEnd.Address)
	for _, want := range []string{"--alias test-model", "--host " + host, "--port " + port} {
		if !strings.Contains(strings.Join(s.Args, " ")+" ", want+" ") {
			t.Errorf("arguments %q lack %q", s.Args, want)
		}
	}
}

// R9: the exit status is told.
func TestExitStatus(t *testing.T) {
	for _, code := range []int{0, 7} {
		started, err := Spawn(specFor(t, script{Exit: &code}))
		if err != nil {
			t.Fatal(err)
		}
		if exit := <-started.Exit; exit.Code != code || exit.Signal != "" {
			t.Errorf("exit %+v, want status %d", exit, code)
		}
	}
}

// R6: a kill does not wait for its grace, and leaves neither process nor file.
func TestKill(t *testing.T) {
	spec := specFor(t, script{})
	started, _ := run(t, spec)
	if _, err := os.Stat(spec.RecordPath); err != nil {
		t.Error(err)
	}
	started.Handle.Kill(t.Context(), time.Hour)
	if exit := <-started.Exit; exit.Code != 1 {
		t.Errorf("exit %+v", exit)
	}
	entries, err := os.ReadDir(spec.RunDir)
	if _, record := os.Stat(spec.RecordPath); err != nil || len(entries) > 0 || !errors.Is(record, os.ErrNotExist) {
		t.Errorf("left %v, %v; the record: %v", entries, err, record)
	}
	started.Handle.Kill(t.Context(), time.Hour) // again, and late: nothing happens
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
		t.Errorf("the child runs still: %#x, %v", event, err)
	}
}

// R3: the back end is a loopback port of its own, and whoever does not listen there is not our child.
func TestBackEnd(t *testing.T) {
	started, _ := run(t, specFor(t, script{Serve: true}))
	host, port, err := net.SplitHostPort(started.BackEnd.Address)
	if err != nil || started.BackEnd.Network != "tcp" || host != "127.0.0.1" || port == "0" {
		t.Errorf("back end %+v, %v", started.BackEnd, err)
	}
	if err := Health(t.Context(), started.BackEnd, started.Handle.PID()); err != nil {
		t.Error(err)
	}
	if err := Health(t.Context(), started.BackEnd, os.Getpid()); !errors.Is(err, ErrNotOurChild) {
		t.Errorf("another process expected: %v", err)
	}
}

// R7: a runtime that was left over is ended by its record; one that differs is left alone.
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
			t.Errorf("Reclaim = %t, %v; want %t", ended, err, want)
		}
	}
	if exit := <-started.Exit; exit.Code != 1 {
		t.Errorf("exit %+v", exit)
	}
}
