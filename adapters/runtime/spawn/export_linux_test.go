package spawn

import (
	"os"

	"companion/adapters/runtime/spawn/sandbox"
)

// WriteRecord exports writeRecord to the external tests.
var WriteRecord = writeRecord

// VerifyRuntime exports verifyRuntime to the external tests.
var VerifyRuntime = verifyRuntime

// UseDevice uses a device file in place of a GPU's until restore is called.
func UseDevice(path string) (restore func()) {
	before := devicePatterns
	devicePatterns = []string{path}
	return func() { devicePatterns = before }
}

// omitted names the layer that the stage leaves out. The stage inherits only locale variables from the test.
const omitted = "LC_OMITTED_LAYER"

func init() {
	if !IsStage() {
		return
	}
	if own, err := os.ReadFile("/proc/self/uid_map"); os.Getenv(failing) != "" && err == nil && len(own) == 0 {
		os.Exit(1)
	}
	switch os.Getenv(omitted) {
	case "landlock":
		layers = sandbox.Layers{Seccomp: true, Limits: true}
	case "seccomp":
		layers = sandbox.Layers{Landlock: true, Limits: true}
	case "limits":
		layers = sandbox.Layers{Landlock: true, Seccomp: true}
	}
}

// failing makes the stage exit when it runs in a user namespace, which has an empty map.
const failing = "LC_FAILING_STAGE"

// FailInNamespaces makes each stage that has its own namespaces fail until restore is called.
func FailInNamespaces() (restore func()) {
	_ = os.Setenv(failing, "x")
	return func() { _ = os.Unsetenv(failing) }
}

// WithoutLayer starts runtimes without one layer, or with all layers for "", until restore is called.
func WithoutLayer(name string) (restore func()) {
	before := ownNamespaces
	if name == "namespace" {
		ownNamespaces = 0
	}
	_ = os.Setenv(omitted, name)
	return func() {
		ownNamespaces = before
		_ = os.Unsetenv(omitted)
	}
}
