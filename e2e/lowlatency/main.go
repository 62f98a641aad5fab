// Command lowlatency prints what each measure of adapters/lowlatency is worth: it runs the benchmarks with
// all measures, then with one measure left out at a time, and does so several times.
//
// Each line of the result names a measure, a figure, the figure's medians with and without the measure, and
// how much longer the figure is without it. A measure that is worth less than 10 % of every figure should be
// deleted. Run it on a machine that does nothing else.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"

	"companion/adapters/lowlatency"
)

// all names the variant with every measure.
const all = "all"

// figures is one go test command and the metrics of it that the measures are for. All of them are better
// when smaller.
type figures struct {
	pkg     string
	args    []string
	metrics []string // the unit column of a benchmark's result
}

// killed measures the time from SIGKILL of the runtime to its report at a control-socket watcher.
func killed(kills int) figures {
	return figures{"./e2e", []string{"-bench", "RuntimeKilled", "-benchtime", strconv.Itoa(kills) + "x"},
		[]string{"word-p50-ms", "word-p99-ms"}}
}

// door measures the front door against a bare reverse proxy.
func door(bursts int) figures {
	return figures{"./actors/door/frontdoor",
		[]string{"-bench", "Figures(Stream|Latency)$", "-benchtime", "1x", "-bursts", strconv.Itoa(bursts)},
		[]string{"stream1_p50_ratio", "stream1_p99_ratio", "stream8_p50_ratio", "stream8_p99_ratio", "p50_ratio", "p99_ratio"}}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lowlatency:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	runs := flag.Int("runs", 3, "how often each variant is measured")
	kills := flag.Int("kills", 100, "kills of the runtime per variant and run; 0: none")
	bursts := flag.Int("bursts", 32000, "bursts of streamed events per variant and run; 0: none")
	flag.Parse()
	variants := map[lowlatency.Measure][]figures{}
	for _, m := range lowlatency.Measures() {
		if *kills > 0 {
			variants[m] = append(variants[m], killed(*kills))
		}
	}
	if *bursts > 0 {
		// The front door runs in the benchmark's process, which uses no other measure.
		variants[lowlatency.RawSocketIO] = append(variants[lowlatency.RawSocketIO], door(*bursts))
	}
	for m := range variants {
		if names := flag.Args(); len(names) > 0 && !slices.Contains(names, string(m)) {
			delete(variants, m)
		}
	}
	if len(variants) == 0 {
		return fmt.Errorf("nothing to measure; the arguments may be %v", lowlatency.Measures())
	}
	return measure(ctx, *runs, variants)
}

// measure runs every variant and prints the table. Variants alternate, so that the machine's other work
// affects all of them.
func measure(ctx context.Context, runs int, variants map[lowlatency.Measure][]figures) error {
	results := map[string]map[string][]float64{}
	for range runs {
		var baseline []string
		for _, m := range lowlatency.Measures() {
			for _, f := range variants[m] {
				for _, without := range []string{all, string(m)} {
					// One baseline per run and command is enough for all measures.
					if key := f.pkg; without == all {
						if slices.Contains(baseline, key) {
							continue
						}
						baseline = append(baseline, key)
					}
					if err := f.run(ctx, without, results); err != nil {
						return err
					}
				}
			}
		}
	}
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(out, "measure\tfigure\twith\twithout\tworth")
	for _, m := range lowlatency.Measures() {
		for _, f := range variants[m] {
			for _, metric := range f.metrics {
				with, without := median(results[all][metric]), median(results[string(m)][metric])
				_, _ = fmt.Fprintf(out, "%s\t%s\t%.3g\t%.3g\t%+.0f %%\n", m, metric, with, without, 100*(without/with-1))
			}
		}
	}
	return out.Flush()
}

// run executes the benchmark without a measure and adds its metrics to the results.
func (f figures) run(ctx context.Context, without string, results map[string]map[string][]float64) error {
	args := []string{"test", "-run", "^$", "-timeout", "60m", "-ldflags", "-X companion/adapters/lowlatency.without=" + without}
	cmd := exec.CommandContext(ctx, "go", append(append(args, f.pkg), f.args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("measuring without %s: %w\n%s", without, errors.Join(err, ctx.Err()), out.Bytes())
	}
	found := 0
	for lines := bufio.NewScanner(&out); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		for i := 2; i+1 < len(fields); i += 2 {
			if !slices.Contains(f.metrics, fields[i+1]) {
				continue
			}
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return fmt.Errorf("reading the result %q: %w", lines.Text(), err)
			}
			if results[without] == nil {
				results[without] = map[string][]float64{}
			}
			results[without][fields[i+1]] = append(results[without][fields[i+1]], value)
			fmt.Printf("without %s: %s = %.4g\n", without, fields[i+1], value)
			found++
		}
	}
	if found != len(f.metrics) {
		return fmt.Errorf("measuring without %s: got %d of the metrics %v in\n%s", without, found, f.metrics, out.Bytes())
	}
	return nil
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
