package browser

import (
	"testing"

	"companion/e2e/harness"
)

// All tests attack one companion with the real runtime.
func TestDoor(t *testing.T) {
	c := harness.Ready(t, "[log]\nlevel = \"debug\"\n")
	t.Run("pages", func(t *testing.T) { testPages(t, c) })
	t.Run("another user", func(t *testing.T) { testStranger(t, c) })
}
