// Package supply tests manifest, downloads, disk and upgrades with the built programs.
package supply

import (
	"testing"

	"companion/e2e/harness"
)

func TestMain(m *testing.M) {
	harness.Main(m)
}
