package spawn

import (
	"os"

	"companion/adapters/runtime/spawn/sandbox"
	"companion/messages"
)

// stageArgument is the hidden first argument that makes this program the helper stage.
const stageArgument = "companion-stage"

// IsStage reports whether this process was started as the helper stage.
func IsStage() bool { return len(os.Args) == 2 && os.Args[1] == stageArgument }

// The descriptors of the stage after the standard three. Only the model's and those of its further files stay open
// in the runtime.
const (
	modelFD = 3 + iota
	planFD
	reportFD
	executableFD
	lifelineFD // its end of file means that the daemon has ended
	handoverFD // carries descriptors to the daemon; Linux only
	furtherFD  // the first of the further files of the model (M17)
)

// plan tells the stage what to execute. It goes through a pipe, because any user can read arguments.
type plan struct {
	Parent      int
	Args        []string
	Env         []string
	MemoryLimit int64
	Mode        Mode
	Policy      sandbox.Policy
	LowLatency  bool   // the setting runtime.low_latency
	Background  bool   // the setting runtime.priority
	Executable  string // path of the program, where a descriptor cannot be executed
	Further     int    // files of the model from furtherFD on
}

// stageReport is what the stage reports before it executes the runtime, and again if that fails. The end of the pipe
// after a report without Failed means that the runtime was executed.
type stageReport struct {
	Sandbox messages.Sandbox
	// Handover means that descriptors for the daemon were sent before this report.
	Handover bool
	// Refused names the canary or step that shows that the sandbox is too weak.
	Refused string
	Failed  string
	PID     int // of the runtime, if the stage stays its parent
}
