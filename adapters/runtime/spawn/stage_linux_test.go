package spawn

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"companion/adapters/runtime/fileid"
	"companion/messages"
)

// program prepares the start of a static program of this machine, with a plan that the test may damage.
func program(t testing.TB, mode Mode) (*preparation, plan) {
	t.Helper()
	dir, err := os.MkdirTemp("", "run-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	model, err := os.Create(filepath.Join(t.TempDir(), "model"))
	if err != nil {
		t.Fatal(err)
	}
	id, err := fileid.Of(model)
	if err != nil {
		t.Fatal(err)
	}
	sleep, err := exec.LookPath("sleep")
	if err == nil {
		sleep, err = filepath.EvalSymlinks(sleep)
	}
	if err != nil {
		t.Fatal(err)
	}
	p, err := prepare(Spec{
		Model:   messages.VerifiedModel{Name: "m", Path: model.Name(), Identity: id},
		Runtime: messages.VerifiedRuntime{Name: "sleep", Dir: filepath.Dir(sleep), Executable: filepath.Base(sleep)},
		RunDir:  dir, RecordPath: filepath.Join(dir, "runtime.json"), Sandbox: mode,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	plan, err := p.plan()
	if err != nil {
		t.Fatal(err)
	}
	plan.Args = []string{"sleep", "60"}
	return p, plan
}

// become starts the stage and lets it execute the plan.
func become(p *preparation, plan plan) (*group, stageReport, error) {
	g, pipes, err := p.startStage(true)
	if err != nil {
		return nil, stageReport{}, err
	}
	defer pipes.close()
	said, err := p.execute(pipes, plan)
	if err != nil {
		g.abandon()
		return nil, said, err
	}
	return g, said, nil
}

// R4: when a canary is not refused, require refuses the start and names it, and prefer starts and reports the lower
// level.
func TestCanariesDecide(t *testing.T) {
	spoil := map[string]struct {
		spoil func(*plan)
		said  string
	}{
		"the canary can be read":        {func(p *plan) { p.Policy.ReadFiles = append(p.Policy.ReadFiles, p.Policy.Canary.Files[0]) }, "reading a file"},
		"the one beside the record can": {func(p *plan) { p.Policy.ReadFiles = append(p.Policy.ReadFiles, p.Policy.Canary.Files[1]) }, "reading a file"},
		"its folder can be listed": {func(p *plan) {
			p.Policy.ReadDirs = append(p.Policy.ReadDirs, p.Policy.Canary.Dir)
		}, "reading a file"},
		"a file of the system can be": {func(p *plan) { p.Policy.ReadFiles = append(p.Policy.ReadFiles, "/etc/hostname") }, "outside"},
		"no canary":                   {func(p *plan) { p.Policy.Canary.Files = nil }, "canary file is not there"},
		"a canary is gone":            {func(p *plan) { p.Policy.Canary.Files[0] = "/nowhere" }, "canary file is not there"},
	}
	for name, test := range spoil {
		t.Run(name, func(t *testing.T) {
			p, plan := program(t, Require)
			test.spoil(&plan)
			_, _, err := become(p, plan)
			var refusal *Error
			if !errors.As(err, &refusal) || refusal.Reason != messages.ReasonSandboxUnavailable || !strings.Contains(err.Error(), test.said) {
				t.Errorf("require: got %v, want sandbox_unavailable", err)
			}

			p, plan = program(t, Prefer)
			test.spoil(&plan)
			g, said, err := become(p, plan)
			if err != nil {
				t.Fatalf("prefer: got %v, want a start", err)
			}
			if said.Sandbox.Landlock != 0 {
				t.Errorf("prefer: got level %+v, want no Landlock", said.Sandbox)
			}
			g.abandon()
		})
	}
}

// R4: an undamaged plan reaches everything that the kernel supports.
func TestSandboxLevel(t *testing.T) {
	p, plan := program(t, Require)
	g, said, err := become(p, plan)
	if err != nil {
		t.Fatal(err)
	}
	if said.Sandbox.Landlock < 1 || !said.Sandbox.Seccomp {
		t.Errorf("got level %+v, want Landlock and seccomp: this test needs a kernel with both", said.Sandbox)
	}
	g.abandon()
}

// R5, T16: the runtime cannot use up the user's limit of threads, and a small limit is left unchanged.
func TestTaskShare(t *testing.T) {
	for limit, want := range map[uint64]uint64{
		unix.RLIM_INFINITY: 32768, 1 << 40: 32768, 65536: 32768, 63404: 31702, 16384: 8192, 16383: 16383, 1024: 1024, 0: 0,
	} {
		if got := taskShare(limit); got != want {
			t.Errorf("of %d: got %d, want %d", limit, got, want)
		}
	}
	p, plan := program(t, Require)
	g, _, err := become(p, plan)
	if err != nil {
		t.Fatal(err)
	}
	defer g.abandon()
	var own, its unix.Rlimit
	if err := errors.Join(unix.Getrlimit(unix.RLIMIT_NPROC, &own), unix.Prlimit(g.pid(), unix.RLIMIT_NPROC, nil, &its)); err != nil {
		t.Fatal(err)
	}
	if want := taskShare(own.Cur); its.Cur != want || its.Max != want {
		t.Errorf("got the limit %+v, want %d", its, want)
	}
}

// A failure of the stage is reported, without a path in the text, and no file is left.
func TestStageFailures(t *testing.T) {
	tests := map[string]struct {
		spoil func(*preparation, *plan)
		said  string
	}{
		"another parent": {func(_ *preparation, p *plan) { p.Parent++ }, "the daemon has ended"},
		"not a program": {func(p *preparation, _ *plan) {
			_ = p.executable.Close()
			p.executable = p.model
		}, "permission denied"},
		"an argument with a zero byte": {func(_ *preparation, p *plan) { p.Args = []string{"\x00"} }, "invalid argument"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p, plan := program(t, Require)
			test.spoil(p, &plan)
			_, _, err := become(p, plan)
			var refusal *Error
			if !errors.As(err, &refusal) || refusal.Reason != messages.ReasonSpawnFailed || !strings.Contains(err.Error(), test.said) ||
				strings.Contains(err.Error(), "/") {
				t.Errorf("got %v, want spawn_failed with the step and no path", err)
			}
		})
	}
}

// R6: the group ends with its leader: also grandchildren that ignore SIGTERM, and those that nothing would reap.
func TestGroupEndsWhole(t *testing.T) {
	for name, end := range map[string]func(*Handle){
		"polite":  func(h *Handle) { h.Kill(context.Background(), 10*time.Second) },
		"at once": func(h *Handle) { h.Kill(cancelled(), time.Hour) },
		"leader dies": func(h *Handle) {
			_ = syscall.Kill(h.PID(), syscall.SIGKILL)
			<-h.done
		},
	} {
		t.Run(name, func(t *testing.T) {
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("/bin/sh", "-c", `trap "" TERM; sleep 300 & echo $!; (trap "" TERM; sleep 301) & echo $!; trap - TERM; echo ready; wait`)
			cmd.Stdout, cmd.SysProcAttr = write, &syscall.SysProcAttr{Setsid: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			_ = write.Close()
			var output strings.Builder
			for buffer := make([]byte, 256); !strings.Contains(output.String(), "ready"); {
				n, err := read.Read(buffer)
				if err != nil {
					t.Fatal(err)
				}
				output.Write(buffer[:n])
			}
			_ = read.Close()
			h := &Handle{group: &group{cmd: cmd}, done: make(chan struct{})}
			go func() {
				h.group.wait()
				close(h.done)
			}()
			end(h)
			for _, field := range strings.Fields(output.String())[:2] {
				pid, err := strconv.Atoi(field)
				if err != nil {
					t.Fatal(err)
				}
				if alive(pid) {
					t.Errorf("got a living grandchild %d, want it ended", pid)
				}
			}
		})
	}
}

// alive reports whether the process runs; a zombie that process 1 must reap does not.
func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func cancelled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// BenchmarkStart prints the time from starting a child to its execution: without the stage, and through the stage with
// the whole sandbox. The difference is the cost of confinement (at most 10 ms).
func BenchmarkStart(b *testing.B) {
	b.Run("bare", func(b *testing.B) {
		for b.Loop() {
			cmd := exec.Command("sleep", "60")
			if err := cmd.Start(); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			b.StartTimer()
		}
	})
	b.Run("confined", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			p, plan := program(b, Require)
			b.StartTimer()
			g, _, err := become(p, plan)
			b.StopTimer()
			if err != nil {
				b.Fatal(err)
			}
			g.abandon()
			p.close()
			b.StartTimer()
		}
	})
}

// R5: no resource is left without a bound that a hostile runtime could use up.
func TestResourceLimits(t *testing.T) {
	p, plan := program(t, Require)
	g, _, err := become(p, plan)
	if err != nil {
		t.Fatal(err)
	}
	defer g.abandon()
	for resource, most := range map[int]uint64{
		unix.RLIMIT_NOFILE: openFiles, unix.RLIMIT_CORE: 0, unix.RLIMIT_FSIZE: 0, unix.RLIMIT_SIGPENDING: pendingSignals,
	} {
		var its unix.Rlimit
		if err := unix.Prlimit(g.pid(), resource, nil, &its); err != nil || its.Cur > most || its.Max > most {
			t.Errorf("resource %d: got %+v, %v, want at most %d", resource, its, err, most)
		}
	}
}

// A start that fails because the daemon has no descriptor left leaves none open, whichever step finds none.
func TestFailedStartLeavesNoDescriptor(t *testing.T) {
	p, plan := program(t, Require)
	open := func() (count, highest int) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if fd, err := strconv.Atoi(entry.Name()); err == nil {
				count, highest = count+1, max(highest, fd)
			}
		}
		return count, highest
	}
	if g, _, err := become(p, plan); err != nil { // opens what Go keeps open from the first start on
		t.Fatal(err)
	} else {
		g.abandon()
	}
	before, highest := open()
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		t.Fatal(err)
	}
	limit := func(files uint64) {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: files, Max: own.Max}); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { limit(own.Cur) }()
	failures, starts := 0, 0
	for files := 3; files < highest+40 && starts < 2; files++ {
		limit(uint64(files))
		g, pipes, err := p.startStage(false)
		limit(own.Cur)
		if err == nil {
			starts++
			pipes.close()
			g.abandon()
			continue
		}
		failures++
		if after, _ := open(); after > before { // less: the pipe of the earlier start was closed
			t.Fatalf("limit %d: %v: got %d open descriptors, want at most %d", files, err, after, before)
		}
	}
	if failures < 8 {
		t.Errorf("got %d failed starts, want at least 8", failures)
	}
}

// R10: a signal may interrupt the thread that binds at any moment; it asks again, and the daemon must still be there.
func TestInterruptedBindIsAskedAgain(t *testing.T) {
	for err, want := range map[error]bool{unix.ENOENT: true, unix.ESRCH: true, unix.EPERM: false, unix.EBADF: false, nil: false} {
		if got := interrupted(err); got != want {
			t.Errorf("%v: got %v, want %v", err, got, want)
		}
	}
}
