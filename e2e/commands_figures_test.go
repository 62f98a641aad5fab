//go:build linux

package e2e

import (
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/creack/pty"

	"companion/e2e/harness"
)

// BenchmarkCommands prints what the commands of every day cost, against a daemon with a ready model: `status` as a process
// (p50 at most 20 ms) and `doctor` (at most 3 s). They alternate with `version`, which asks no daemon, so that the ratio tells
// the commands' own part from the machine's load.
func BenchmarkCommands(b *testing.B) {
	c := harness.Ready(b, "")
	took := map[string][]time.Duration{}
	for b.Loop() {
		for range 20 {
			for _, command := range []string{"version", "status", "doctor"} {
				began := time.Now()
				c.Must(command)
				took[command] = append(took[command], time.Since(began))
			}
		}
	}
	for command, all := range took {
		slices.Sort(all)
		b.ReportMetric(harness.Median(all).Seconds()*1e3, command+"-p50-ms")
		b.ReportMetric(all[0].Seconds()*1e3, command+"-min-ms")
		b.ReportMetric(all[len(all)-1].Seconds()*1e3, command+"-max-ms")
	}
	b.ReportMetric(harness.Median(took["status"]).Seconds()/harness.Median(took["version"]).Seconds(), "status/version")
}

// BenchmarkDashboard prints the processor time of `status --watch` on a terminal, by the scheduler's statistics: at most 1 %
// of a core.
func BenchmarkDashboard(b *testing.B) {
	c := harness.Ready(b, "")
	const span = 15 * time.Second
	var busy float64
	for b.Loop() {
		cmd := exec.Command(harness.Binary(b, "companion"), "status", "--watch")
		cmd.Env = append(c.Environ(), "TERM=xterm-256color")
		terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: 80, Rows: 24})
		if err != nil {
			b.Fatal(err)
		}
		read := make(chan int)
		go func() {
			seen, buffer := 0, make([]byte, 4096)
			for {
				n, err := terminal.Read(buffer)
				seen += n
				if err != nil {
					read <- seen
					return
				}
			}
		}()
		time.Sleep(2 * time.Second) // its start
		before := scheduled(b, cmd.Process.Pid)
		time.Sleep(span)
		busy = (scheduled(b, cmd.Process.Pid) - before).Seconds() / span.Seconds() * 100
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = terminal.Close()
		if seen := <-read; seen < 1000 {
			b.Fatalf("got %d bytes on the terminal, want a dashboard", seen)
		}
	}
	b.ReportMetric(busy, "cpu-%")
}
