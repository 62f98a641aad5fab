// Package e2e drives the built programs with real parts: runtime, model, keyring, TLS, processes.
package e2e

import (
	"testing"

	"companion/adapters/runtime/spawn"
	"companion/e2e/harness"
)

func TestMain(m *testing.M) {
	if spawn.IsStage() { // the figures start the runtime themselves
		spawn.StageMain()
	}
	harness.Main(m)
}
