// Package e2e drives the built programs with real parts: runtime, model, keyring, TLS, processes.
package e2e

import (
	"testing"

	"companion/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
