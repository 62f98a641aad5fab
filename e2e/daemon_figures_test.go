package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"companion/adapters/door/controlsock"
	"companion/e2e/harness"
	"companion/messages"
)

// BenchmarkDaemonStart prints how much later than the bare runtime the daemon is available: the time from the
// start of `companion run`, with model and runtime present, to companionAvailable, minus the time that the
// same runtime takes in the same run from exec to its first healthy answer, without stage and sandbox. At
// most 300 ms. Ten runs give a stable figure: -benchtime 10x.
func BenchmarkDaemonStart(b *testing.B) {
	c := harness.Ready(b, "")
	c.Stop()
	runtime, model := harness.UnpackRuntime(b), harness.Parts(b).Model.File
	var bare, whole []time.Duration
	for b.Loop() {
		bare = append(bare, bareStart(b, runtime, model))
		began := time.Now()
		c.Launch()
		whole = append(whole, awaitWatch(b, c).Sub(began))
		c.Stop()
	}
	slices.Sort(bare)
	slices.Sort(whole)
	b.ReportMetric(harness.Median(bare).Seconds()*1e3, "bare-ms")
	b.ReportMetric(harness.Median(whole).Seconds()*1e3, "daemon-ms")
	b.ReportMetric((harness.Median(whole)-harness.Median(bare)).Seconds()*1e3, "added-ms")
}

// awaitWatch follows the status from the first answer of the control socket, and returns the moment at which
// inference became available.
func awaitWatch(b *testing.B, c *harness.Companion) time.Time {
	b.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		var at time.Time
		err := controlsockWatch(b, c, func(s messages.Status) bool {
			if s.CompanionAvailable {
				at = time.Now()
			}
			return s.CompanionAvailable
		})
		if !at.IsZero() {
			return at
		}
		if time.Now().After(deadline) {
			b.Fatalf("got no availability before the deadline, want it: %v", err)
		}
	}
}

// bareStart times the runtime alone, with the arguments that affect its start.
func bareStart(b *testing.B, runtime messages.VerifiedRuntime, model string) time.Duration {
	b.Helper()
	socket := filepath.Join(harness.TempDir(b), "llama.sock")
	cmd := exec.Command(filepath.Join(runtime.Dir, runtime.Executable), "--host", socket, "--alias", "m", "-m", model, "-c", "4096")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	old := syscall.Umask(0o177)
	began := time.Now()
	err := cmd.Start()
	syscall.Umask(old)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	awaitHealth(b, messages.BackEnd{Network: "unix", Address: socket}, cmd.Process.Pid)
	return time.Since(began)
}

// BenchmarkIdle prints the resident memory and the processor time, by the scheduler's statistics, of a daemon with a ready
// model and without requests: at most 35 MiB, and no measurable load. IDLE=10m measures for ten minutes.
func BenchmarkIdle(b *testing.B) {
	c := harness.Ready(b, "")
	pid := c.Daemon.PID
	var resident, busy float64
	span, err := time.ParseDuration(os.Getenv("IDLE"))
	if err != nil {
		span = 30 * time.Second
	}
	for b.Loop() {
		time.Sleep(10 * time.Second) // what the start left behind is collected
		before := scheduled(b, pid)
		time.Sleep(span)
		busy = (scheduled(b, pid) - before).Seconds() / span.Seconds() * 100
		resident = harness.Memory(b, pid, "VmRSS")
	}
	b.ReportMetric(resident, "resident-MiB")
	b.ReportMetric(busy, "cpu-%")
}

// scheduled is the time that all threads of a process have had a processor, to the nanosecond.
func scheduled(b *testing.B, pid int) time.Duration {
	b.Helper()
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		b.Fatal(err)
	}
	var all time.Duration
	for _, thread := range threads {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, thread.Name()))
		if err != nil {
			continue // it has ended
		}
		first, _, _ := strings.Cut(string(stat), " ")
		n, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		all += time.Duration(n)
	}
	return all
}

// errSeen ends a watch that has seen the expected status.
var errSeen = errors.New("seen")

func controlsockWatch(b *testing.B, c *harness.Companion, seen func(messages.Status) bool) error {
	b.Helper()
	return controlsock.Dial(filepath.Join(c.RunTime(), "control.sock")).Watch(b.Context(), func(s messages.Status) error {
		if seen(s) {
			return errSeen
		}
		return nil
	})
}
