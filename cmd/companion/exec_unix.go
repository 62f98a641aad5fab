//go:build unix

package main

import (
	"fmt"
	"os/exec"
	"syscall"
)

func lookPath(name string) (string, error) { return exec.LookPath(name) }

// replace becomes the program, so that its exit status, signals and terminal are its own.
func replace(program string, argv, environ []string) error {
	if err := syscall.Exec(program, argv, environ); err != nil {
		return fmt.Errorf("running %s: %w", program, err)
	}
	return nil
}
