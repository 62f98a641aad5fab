package spawn

import (
	"os"

	"companion/adapters/runtime/spawn/sandbox"
	"companion/messages"
)

// stageArgument is the hidden first argument that makes our binary the helper stage.
const stageArgument = "companion-stage"

// IsStage reports whether this process was started as the helper stage.
func IsStage() bool { return len(os.Args) == 2 && os.Args[1] == stageArgument }

// The descriptors of the stage after the standard three. Only the model's stays open in the runtime.
const (
	modelFD = 3 + iota
	planFD
	reportFD
	executableFD
	lifelineFD // its end is the daemon's end
	handoverFD // takes descriptors to the daemon; Linux only
)

// plan tells the stage what to become. It travels through a pipe, because any user can read arguments.
type plan struct {
	Parent      int
	Args        []string
	Env         []string
	MemoryLimit int64
	Mode        Mode
	Policy      sandbox.Policy
	LowLatency  bool   // the setting runtime.low_latency
	Executable  string // where a descriptor cannot be executed
}

// stageReport is what the stage says before it becomes the runtime, and again if it cannot. The end of the pipe after a
// report without Failed means that the runtime was executed.
type stageReport struct {
	Sandbox messages.Sandbox
	// Handover: descriptors for the daemon came before this report.
	Handover bool
	// Refused names the canary or step for which the sandbox is not good enough.
	Refused string
	Failed  string
	PID     int // of the runtime, where the stage stays its parent
}
