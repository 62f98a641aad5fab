package browser

import (
	"os/exec"
	"syscall"
)

func commands(func(string) string) [][]string { return [][]string{{"open"}} }

// detach puts the opener in a session of its own, away from the terminal and its signals.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
