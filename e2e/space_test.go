package e2e

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
		c.StartOnSmallDisk("32k")
		code, reasons := pulled(t, c)
		checkNoSpace(t, c, code, reasons, "less free space than the artifact needs")
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
		c.StartOnSmallDisk("12m")
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

func checkNoSpace(t *testing.T, c *harness.Companion, code int, reasons []messages.Reason, says string) {
	t.Helper()
	if code != 1 || !slices.Contains(reasons, messages.ReasonNoSpace) {
		t.Errorf("pull: exit %d, status says %q; want 1, no_space", code, reasons)
	}
	if !logged(c, "artifact not available", "inert", says) {
		t.Errorf("the log does not say %q of the model, want it", says)
	}
	if status, _ := c.Status(); status.Facts.Verified {
		t.Error("verified without space")
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
	file, err := os.Create(filler)
	if err != nil {
		return fmt.Errorf("filling the disk: %w", err)
	}
	defer file.Close()
	for chunk := make([]byte, 64<<10); err == nil; {
		_, err = file.Write(chunk)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("filling the disk: %w", err)
	}
	return nil
}
