package e2e

import (
	"slices"
	"testing"

	"companion/e2e/harness"
	"companion/messages"
)

// M8: on a full disk the reason is no_space, and nothing lies under a final name. The data folder is
// a file system of 32 KiB in a mount namespace of the daemon's own.
func TestDiskFull(t *testing.T) {
	hub := harness.NewHub(t)
	hub.PublishSmall()
	c := hub.Companion("")
	c.StartOnSmallDisk("32k")
	if code, reasons := pulled(t, c); code != 1 || !slices.Contains(reasons, messages.ReasonNoSpace) {
		t.Errorf("pull: exit %d, status says %q; want 1, no_space", code, reasons)
	}
	if status, _ := c.Status(); status.Facts.Verified {
		t.Error("verified without space")
	}
}
