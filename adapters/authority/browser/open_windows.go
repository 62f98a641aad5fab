package browser

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"
)

func commands(func(string) string) [][]string {
	return [][]string{{"rundll32", "url.dll,FileProtocolHandler"}}
}

// detach keeps the console's interrupt from the opener.
func detach(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP}
}
