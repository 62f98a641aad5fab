package supply

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"companion/e2e/harness"
	"companion/messages"
)

// times returns how often a test repeats: few times, or the number in an environment variable.
func times(t *testing.T, variable string, few int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return few
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q, want a whole number of at least 1", variable, text)
	}
	return n
}

var sentBytes = regexp.MustCompile(`"bytes": (\d+)`)

// sent returns how many bytes of artifacts a hub has sent.
func sent(t *testing.T, hub *harness.Hub) (total int64) {
	t.Helper()
	for _, line := range hub.ArtifactRequests(harness.ArtifactHost) {
		match := sentBytes.FindStringSubmatch(line)
		if match == nil {
			t.Fatalf("got the line %q, want one with bytes", line)
		}
		n, err := strconv.ParseInt(match[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
	return total
}

// publishChunks offers a model of that many random bytes in chunks, as the default, next to the runtime of PublishInert.
func publishChunks(t *testing.T, hub *harness.Hub, size int) []byte {
	t.Helper()
	hub.PublishSmall()
	model := make([]byte, size)
	seed := [32]byte{}
	for i := range seed {
		seed[i] = byte(rand.Uint32())
	}
	_, _ = rand.NewChaCha8(seed).Read(model) // never fails
	copy(model, "GGUF")
	file := filepath.Join(harness.TempDir(t), "chunks.gguf")
	if err := os.WriteFile(file, model, 0o600); err != nil {
		t.Fatal(err)
	}
	hub.Publish("model", "inert", file, "--default", "--chunk-size", "1048576")
	return model
}

// litter returns the files of the data folder that belong to no finished artifact.
func litter(t *testing.T, c *harness.Companion) (found []string) {
	t.Helper()
	err := filepath.WalkDir(c.Data(), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !e.IsDir() && (strings.HasPrefix(e.Name(), ".") || filepath.Base(filepath.Dir(path)) == "partial") {
			found = append(found, e.Name())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// M7, M8, M14: the daemon is killed at random moments of one download by chunks. Afterwards the right file is there, nothing
// else is left, and hardly a byte was fetched twice. PULL_KILLS sets how often; `task test-kills` uses 200.
func TestPullKilled(t *testing.T) {
	kills := times(t, "PULL_KILLS", 5)
	hub := harness.NewHub(t)
	// About a tenth of a second of the slow host for each kill.
	model := publishChunks(t, hub, max(4<<20, kills*128<<10))
	hub.Fault("slow", true)
	c := hub.Companion("")
	c.Start()
	c.SignIn()
	began := sent(t, hub)
	for range kills {
		c.Await("the transfer", time.Minute, func(s messages.Status) bool { return len(s.Transfers) > 0 || s.Facts.Verified })
		time.Sleep(time.Duration(rand.Int64N(int64(150 * time.Millisecond))))
		c.Daemon.Kill()
		c.Start()
	}
	hub.Fault("slow", false)
	c.Await("verified", time.Minute, func(s messages.Status) bool { return s.Facts.Verified })
	if !holds(t, c, model) {
		t.Error("got another file, want the model")
	}
	if left := litter(t, c); len(left) != 0 {
		t.Errorf("got the files %v left, want none", left)
	}
	fetched := sent(t, hub) - began
	t.Logf("%d kills: %d of %d bytes were sent (%.3f times)", kills, fetched, len(model), float64(fetched)/float64(len(model)))
	// A kill loses what is in the buffers of the connection, which may be many bytes for a file of this size.
	if most := int64(len(model)) + int64(kills)*(512<<10); fetched > most {
		t.Errorf("got %d bytes sent, want at most %d", fetched, most)
	}
}

// M8, M14: a download is cut again and again. The right file arrives, and hardly a byte is fetched twice.
func TestPullCut(t *testing.T) {
	hub := harness.NewHub(t)
	model := publishChunks(t, hub, 8<<20)
	hub.Fault("cut", true) // after half of what was asked for, but not in the last 64 KiB
	c := hub.Companion("")
	c.Start()
	c.SignIn()
	c.Await("verified", time.Minute, func(s messages.Status) bool { return s.Facts.Verified })
	if !holds(t, c, model) {
		t.Error("got another file, want the model")
	}
	if left := litter(t, c); len(left) != 0 {
		t.Errorf("got the files %v left, want none", left)
	}
	cuts, fetched := strings.Count(c.Log(), "download interrupted"), sent(t, hub)
	t.Logf("%d cuts: %d of %d bytes were sent (%.3f times)", cuts, fetched, len(model), float64(fetched)/float64(len(model)))
	if cuts < 6 || fetched*100 > int64(len(model))*102 {
		t.Errorf("got %d cuts and %d bytes sent, want at least 6 and at most 1.02 times %d", cuts, fetched, len(model))
	}
}
