package supply

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"companion/e2e/fixtures/fixture"
	"companion/e2e/harness"
	"companion/messages"
)

// M12, M13: the runtime is upgraded and rolled back between two real builds, and the daemon is killed at a random moment of each
// change. After every start something verified serves, and it answers. UPGRADES sets how often; `task test-kills` uses 20.
func TestUpgradesKilled(t *testing.T) {
	hub, c := realPair(t)
	other, err := fixture.FetchOther(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	builds := []string{other.File, harness.Parts(t).Runtime.File}
	longest, served := time.Duration(0), map[string]int{}
	for i := range times(t, "UPGRADES", 1) {
		version := strconv.Itoa(i + 2)
		hub.Publish("runtime", harness.RuntimeName, builds[i%2], "--version", version, "--default")
		changed := make(chan harness.Result, 1)
		go func() { changed <- c.Run("pull") }()
		time.Sleep(time.Duration(rand.Int64N(int64(4 * time.Second)))) // fetching, unpacking, draining, or starting
		c.Daemon.Kill()
		<-changed
		began := time.Now()
		c.Start()
		watch := c.Watch()
		status := watch.Await("serving after kill "+version, harness.AvailableWithin, func(s messages.Status) bool { return s.CompanionAvailable })
		watch.Close()
		longest = max(longest, time.Since(began))
		served[status.Runtime.Version]++
		if reply := c.Door().Chat(t.Context(), 4); reply.Status != 200 && reply.Status != 503 { // 503: the newer one follows
			t.Fatalf("after kill %s: got the answer %d %q, %v; want one", version, reply.Status, reply.Body, reply.Err)
		}
		// On some processors the other build does not become ready: then the build before serves on.
		c.Await("the end of the change to "+version, 2*harness.AvailableWithin, func(s messages.Status) bool {
			return s.CompanionAvailable && (s.Runtime.Version == version || logged(c, "newer artifacts did not become ready"))
		})
	}
	t.Logf("versions that served first after the starts: %v; the slowest start took %v", served, longest)
}
