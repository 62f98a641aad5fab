package supply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"companion/e2e/harness"
	"companion/messages"
)

// M7, M8: on a full disk the reason is no_space, and no model has its final name. The data folder is a small
// file system in a mount namespace of the daemon.
func TestDiskFull(t *testing.T) {
	t.Run("before the first byte", func(t *testing.T) {
		hub := harness.NewHub(t)
		hub.PublishSmall()
		c := hub.Companion("")
		c.StartOnSmallDisk(c.Data(), "32k")
		code, reasons := pulled(t, c)
		checkNoSpace(t, c, code, reasons, "free, the artifact needs")
		if _, err := os.Stat(filepath.Join(c.Data(), "models")); err != nil {
			t.Errorf("the data folder is not seen: %v", err)
		}
		// The runtime's archive is small enough.
		if asked := hub.ArtifactRequests(harness.ArtifactHost); len(asked) > 1 {
			t.Errorf("got requests for the model, want none:\n%s", asked)
		}
	})
	t.Run("while bytes come", func(t *testing.T) {
		hub := harness.NewHub(t)
		want := hub.PublishInert(8 << 20)
		hub.Fault("slow", true)
		c := hub.Companion("")
		c.StartOnSmallDisk(c.Data(), "12m")
		filler := filepath.Join(c.Data(), "filler")
		filled := make(chan error, 1)
		go func() { filled <- fillOnceBytesCome(t.Context(), c.Data(), filler) }()
		code, reasons := pulled(t, c)
		if err := <-filled; err != nil {
			t.Fatal(err)
		}
		checkNoSpace(t, c, code, reasons, "no space left on device")

		hub.Fault("slow", false)
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		if code, reasons := pull(t, c); code != 0 || !holds(t, c, want) {
			t.Errorf("with space again: got exit %d, %q, stored %q, want 0 and %v stored", code, reasons, stored(t, c), want)
		}
	})
}

// A8, M8: a full disk under the state folder is named, with the folder and its free space, and does not count as a
// crash loop; doctor names it, too. With space again a start by the user succeeds.
func TestStateDiskFull(t *testing.T) {
	c := harness.RealHub(t).Companion("[log]\nmax_size = \"1MiB\"\n")
	c.StartOnSmallDisk(c.State(), "2m")
	filler := filepath.Join(c.State(), "filler")
	if err := fill(filler); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk: got %v, want ENOSPC", err)
	}
	c.SignIn()
	held := c.Await("held", 2*time.Minute, func(s messages.Status) bool { return s.Runtime.Held })
	if held.Reason != messages.ReasonNoSpace || held.Runtime.LastExit == nil || held.Runtime.LastExit.Reason != messages.ReasonNoSpace {
		t.Errorf("got the reason %s and the last exit %+v, want no_space", held.Reason, held.Runtime.LastExit)
	}
	folder := filepath.Join(c.Home, "state/companion")
	for _, command := range []string{"status", "doctor"} {
		if r := c.RunInside(command); !strings.Contains(r.Stdout, folder+" has 0 B free") || !strings.Contains(r.Stdout, "1.0 MiB") {
			t.Errorf("%s: got %s%s, want the state folder, its free space and what is needed", command, r.Stdout, r.Stderr)
		}
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if r := c.Run("start", "--wait"); r.Code != 0 {
		t.Errorf("start with space again: got status %d, want 0: %s", r.Code, r.Stderr)
	}
}

// P4, A8: a memory limit that the runtime cannot start in is named, and does not count as a crash loop.
func TestMemoryLimitTooSmall(t *testing.T) {
	c := harness.RealHub(t).Companion("[runtime]\nmemory_limit = \"64MiB\"\n")
	c.Small = true
	c.Start()
	c.SignIn()
	held := c.Await("held", 2*time.Minute, func(s messages.Status) bool { return s.Runtime.Held })
	if held.Reason != messages.ReasonRAMOverLimit || held.Runtime.LastExit == nil || held.Runtime.LastExit.Reason != messages.ReasonRAMOverLimit {
		t.Errorf("got the reason %s and the last exit %+v, want ram_over_limit", held.Reason, held.Runtime.LastExit)
	}
	if r := c.Run("status"); !strings.Contains(r.Stdout, "needs more memory than `runtime.memory_limit`") || !strings.Contains(r.Stdout, "raise `runtime.memory_limit`") {
		t.Errorf("status: got %s, want the limit and the next step", r.Stdout)
	}
}

func checkNoSpace(t *testing.T, c *harness.Companion, code int, reasons []messages.Reason, says string) {
	t.Helper()
	if code != 1 || !slices.Contains(reasons, messages.ReasonNoSpace) {
		t.Errorf("pull: exit %d, status says %q; want 1, no_space", code, reasons)
	}
	if !logged(c, "artifact not available", "inert", says) {
		t.Errorf("the log does not say %q of the model, want it", says)
	}
	if status, _ := c.Status(); status.Facts.Verified {
		t.Error("got a verified model without disk space, want none")
	}
	for _, file := range stored(t, c) {
		if strings.HasPrefix(file, "/models/") {
			t.Errorf("got %s, want no model stored", file)
		}
	}
}

// fillOnceBytesCome fills the file system with filler as soon as a partial file grows.
func fillOnceBytesCome(ctx context.Context, data, filler string) error {
	for grown := false; !grown; time.Sleep(10 * time.Millisecond) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		parts, _ := filepath.Glob(filepath.Join(data, "partial", "*.part"))
		grown = slices.ContainsFunc(parts, func(part string) bool {
			info, err := os.Stat(part)
			return err == nil && info.Size() >= 64<<10
		})
	}
	if err := fill(filler); !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("filling the disk: %w", err)
	}
	return nil
}

// fill writes a file until it fails.
func fill(name string) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	defer file.Close()
	for chunk := make([]byte, 4<<10); err == nil; {
		_, err = file.Write(chunk)
	}
	return err
}
