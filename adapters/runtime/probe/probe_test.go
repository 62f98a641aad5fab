package probe

import (
	"context"
	"fmt"
	"math"
	"os"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(observeEnv) != "" {
		observeOnly()
	}
	goleak.VerifyTestMain(m)
}

// P1: memory and CPU share of a real process, this one.
func TestObserve(t *testing.T) {
	p := New()
	defer p.Close()
	begin := time.Now()
	first, err := p.Observe(t.Context(), os.Getpid(), begin)
	if err != nil {
		t.Fatal(err)
	}
	if first.ResidentBytes < 1<<20 || first.PID != os.Getpid() || first.Failed || !first.At.Equal(begin) || first.CPUPercent < 0 || first.CPUPercent > 100 {
		t.Errorf("got %+v, want memory and CPU share of this process", first)
	}
	for sink := 0.0; time.Since(begin) < 200*time.Millisecond; {
		sink = math.Sqrt(sink + 1)
	}
	// One busy thread for 0.2 s, in an interval that is given as 0.6 s.
	second, err := p.Observe(t.Context(), os.Getpid(), begin.Add(600*time.Millisecond))
	if err != nil || second.CPUPercent <= 0 || second.CPUPercent > 100 {
		t.Errorf("got %+v, %v, want a CPU share above 0 and up to 100", second, err)
	}
}

// P3: a process that cannot be observed gives an error, not a load of zero, also just after an observation of
// another process.
func TestFailure(t *testing.T) {
	p := New()
	defer p.Close()
	now := time.Now()
	if _, err := p.Observe(t.Context(), os.Getpid(), now); err != nil {
		t.Fatal(err)
	}
	const nobody = math.MaxInt32
	for range 2 {
		seen, err := p.Observe(context.Background(), nobody, now)
		if err == nil || !seen.Failed || seen.PID != nobody || !seen.At.Equal(now) {
			t.Errorf("got %+v, %v, want a failed observation of process %d", seen, err, nobody)
		}
	}
}

func TestShare(t *testing.T) {
	tests := map[string]struct {
		used       float64
		passed     time.Duration
		processors int
		want       float64
	}{
		"half of one":     {0.5, time.Second, 1, 50},
		"one of two":      {1, time.Second, 2, 50},
		"ticks overshoot": {1.01, time.Second, 1, 100},
		"no time":         {1, 0, 1, 0},
		"time goes back":  {1, -time.Second, 1, 0},
		"no use":          {0, time.Second, 1, 0},
	}
	for name, test := range tests {
		if got := share(test.used, test.passed, test.processors); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

// observeEnv is the environment variable that makes this test binary observe the process with that id.
const observeEnv = "PROBE_TEST_OBSERVE"

func observeOnly() {
	pid, _ := strconv.Atoi(os.Getenv(observeEnv))
	p := New()
	for i := range 3 {
		if _, err := p.Observe(context.Background(), pid, time.Now().Add(time.Duration(i)*time.Second)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	os.Exit(0)
}

// BenchmarkObserve measures one observation.
func BenchmarkObserve(b *testing.B) {
	p := New()
	defer p.Close()
	for b.Loop() {
		if _, err := p.Observe(b.Context(), os.Getpid(), time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}
