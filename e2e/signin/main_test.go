// Package signin tests sign-in, sign-out, refreshing and the keychain with the built programs.
package signin

import (
	"testing"

	"companion/e2e/harness"
)

func TestMain(m *testing.M) {
	harness.Main(m)
}
