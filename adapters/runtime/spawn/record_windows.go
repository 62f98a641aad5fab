package spawn

import (
	"context"
	"time"

	"golang.org/x/sys/windows"
)

// end kills the recorded process and waits until it has ended. The open handle keeps the process id from being reused.
// It also keeps an ended process visible, so that only the handle tells whether the process has ended.
func end(ctx context.Context, r record) (bool, error) {
	process, err := windows.OpenProcess(windows.SYNCHRONIZE|windows.PROCESS_TERMINATE, false, uint32(r.PID))
	if err != nil {
		return false, nil
	}
	defer func() { _ = windows.CloseHandle(process) }()
	if ended(process, 0) || !running(r) {
		return false, nil
	}
	if err := windows.TerminateProcess(process, 1); err != nil {
		return false, err
	}
	for deadline := time.Now().Add(killPatience); !ended(process, 10); {
		if time.Now().After(deadline) {
			return false, ErrUnended
		}
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
	}
	return true, nil
}

// ended waits up to the given number of milliseconds for the end.
func ended(process windows.Handle, wait uint32) bool {
	event, _ := windows.WaitForSingleObject(process, wait)
	return event == windows.WAIT_OBJECT_0
}
