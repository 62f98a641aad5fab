package spawn

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"

	"companion/adapters/runtime/spawn/lifeline"
)

// StageMain stays as the parent of the runtime and holds the lifeline (R2): when the daemon ends, for whatever reason,
// the whole group is killed. Untested on real machines; package lifeline is tested on Linux.
func StageMain() {
	report := os.NewFile(reportFD, "report")
	status, err := stage(report)
	if err != nil {
		_ = json.NewEncoder(report).Encode(stageReport{Failed: err.Error()})
		os.Exit(1)
	}
	lifeline.End(status)
}

func stage(report *os.File) (syscall.WaitStatus, error) {
	syscall.Umask(0o177)
	p, err := readPlan()
	if err != nil {
		return 0, err
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return 0, fmt.Errorf("forbidding core files: %w", err)
	}
	// The system cannot execute a descriptor: the path was verified and belongs to the user.
	runtime := lifeline.Program{Path: p.Executable, Args: p.Args, Env: p.Env, Model: os.NewFile(modelFD, "model")}
	for i := range p.Further {
		runtime.Further = append(runtime.Further, os.NewFile(uintptr(furtherFD+i), "part"))
	}
	status, err := lifeline.Hold(runtime, os.NewFile(lifelineFD, "lifeline"), func(pid int) error {
		return errors.Join(json.NewEncoder(report).Encode(stageReport{PID: pid}), report.Close())
	})
	if err != nil {
		return 0, fmt.Errorf("running the runtime: %w", pathless(err))
	}
	return status, nil
}
