package signin

import (
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"companion/adapters/door/controlsock"
	"companion/e2e/harness"
	"companion/messages"
)

// report reports the smallest, the median and the largest of times, in milliseconds.
func report(b *testing.B, name string, times []time.Duration) {
	b.Helper()
	slices.Sort(times)
	for what, took := range map[string]time.Duration{"min": times[0], "median": harness.Median(times), "max": times[len(times)-1]} {
		b.ReportMetric(float64(took.Microseconds())/1000, name+"-"+what+"-ms")
	}
}

// BenchmarkStoppedSecretService measures `status`, process start included, and the shutdown, while the Secret Service runs, right
// after it was stopped by SIGSTOP, and once the daemon has noticed that (K7). It alternates.
func BenchmarkStoppedSecretService(b *testing.B) {
	bus, service := secretService(b)
	c := harness.NewHub(b).Companion("")
	c.Edit(`backend = "kernel-keyring"`, `backend = "secret-service"`)
	c.Extra = []string{bus}
	signal := func(s syscall.Signal) {
		b.Helper()
		if err := service.Signal(s); err != nil {
			b.Fatal(err)
		}
	}
	times := map[string][]time.Duration{}
	once := func(name string, stop bool, noticed bool) {
		c.Start()
		c.Await("the token stored", harness.AvailableWithin, func(s messages.Status) bool { return s.Facts.Token })
		if stop {
			signal(syscall.SIGSTOP)
			defer signal(syscall.SIGCONT)
		}
		if noticed {
			c.Await("the token lost", 2*time.Minute, func(s messages.Status) bool { return !s.Facts.Token })
		}
		began := time.Now()
		c.Must("status", "--json")
		times[name+"-status"] = append(times[name+"-status"], time.Since(began))
		began = time.Now()
		c.Daemon.Stop()
		times[name+"-shutdown"] = append(times[name+"-shutdown"], time.Since(began))
	}
	for b.Loop() {
		once("running", false, false)
		once("stopped", true, false)
		once("noticed", true, true)
	}
	for name, took := range times {
		report(b, name, took)
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkAskers sends 1 000 commands that need the access token at once, when it has expired, and counts answers and refreshes
// at the hub (O8).
func BenchmarkAskers(b *testing.B) {
	const askers = 1000
	hub := harness.NewHub(b)
	c := hub.Companion("")
	c.Start()
	var all []time.Duration
	for b.Loop() {
		signInExpired(b, c, hub)
		before := tokenRequests(hub)
		began := time.Now()
		answers := make(chan error, askers)
		var asking sync.WaitGroup
		for range askers {
			asking.Go(func() {
				_, err := controlsock.Dial(filepath.Join(c.RunTime(), "control.sock")).WhoAmI(b.Context())
				answers <- err
			})
		}
		asking.Wait()
		all = append(all, time.Since(began))
		for range askers {
			if err := <-answers; err != nil {
				b.Fatalf("one of %d answers: got %v, want a user", askers, err)
			}
		}
		if n := tokenRequests(hub) - before; n != 1 {
			b.Errorf("refreshes at the hub for %d askers: got %d, want 1", askers, n)
		}
	}
	report(b, "all-answers", all)
	b.ReportMetric(0, "ns/op")
}
