//go:build !unix

package main

import (
	"fmt"
	"os"
	"os/exec"
)

func lookPath(name string) (string, error) { return exec.LookPath(name) }

// replace runs the program as a child, since this system cannot become it, and gives back its exit
// status.
func replace(program string, argv, environ []string) error {
	child, err := os.StartProcess(program, argv, &os.ProcAttr{Env: environ, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return fmt.Errorf("running %s: %w", program, err)
	}
	state, err := child.Wait()
	if err != nil {
		return fmt.Errorf("waiting for %s: %w", program, err)
	}
	return childExit(state.ExitCode())
}
