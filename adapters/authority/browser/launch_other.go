//go:build !linux

package browser

import "os/exec"

func launch(cmd *exec.Cmd) error { return cmd.Start() }
