package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// stopGrace is how long a child may take to stop.
const stopGrace = 20 * time.Second

// child is a program that the demonstration runs.
type child struct {
	name    string
	process *os.Process
	log     string
	ended   chan struct{}
	err     error // after ended
}

// start runs a program whose standard error, and also its output if out is nil, go to a log file.
func (d *demo) start(name string, out io.Writer, args ...string) (*child, error) {
	c := &child{name: name, log: filepath.Join(d.dir, name+".log"), ended: make(chan struct{})}
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("making the log of %s: %w", name, err)
	}
	cmd := exec.Command(d.binary(name), args...)
	cmd.Env = append(os.Environ(), d.xdg()...)
	cmd.Stdout, cmd.Stderr = log, log
	if out != nil {
		cmd.Stdout = out
	}
	// Ctrl-C in the terminal reaches only the demonstration, which then stops its children.
	cmd.SysProcAttr = childAttributes()
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the parent-death signal follows the thread that started the child
		defer log.Close()
		started <- cmd.Start()
		if cmd.Process == nil {
			return
		}
		c.err = cmd.Wait()
		close(c.ended)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	c.process = cmd.Process
	d.children = append(d.children, c)
	return c, nil
}

// watch reports the end of a child that the demonstration did not stop.
func (d *demo) watch(c *child) {
	go func() {
		<-c.ended
		d.died <- c.failure()
	}()
}

// failure says how the child ended, with the end of its log.
func (c *child) failure() error {
	return fmt.Errorf("%s ended (%s); the end of %s:\n%s", c.name, fmt.Sprint(c.err), c.log, tail(c.log))
}

func tail(file string) []byte {
	data, err := os.ReadFile(file)
	if err != nil {
		return []byte(err.Error())
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-15):], []byte("\n"))
}

func (c *child) stop() error {
	select {
	case <-c.ended:
		return nil
	default:
	}
	_ = c.process.Signal(syscall.SIGTERM)
	select {
	case <-c.ended:
	case <-time.After(stopGrace):
		_ = c.process.Kill()
		<-c.ended
		return fmt.Errorf("%s did not end within %s and was killed", c.name, stopGrace)
	}
	if c.err != nil {
		return fmt.Errorf("stopping %s: %w", c.name, c.err)
	}
	return nil
}

// companion runs one command of the companion and returns its standard output.
func (d *demo) companion(ctx context.Context, args ...string) ([]byte, error) {
	return d.output(ctx, "companion", args...)
}

func (d *demo) output(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, d.binary(name), args...)
	cmd.Env = append(os.Environ(), d.xdg()...)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out, fmt.Errorf("%s %s: %w: %s", name, args[0], err, bytes.TrimSpace(exit.Stderr))
	}
	if err != nil {
		return out, fmt.Errorf("%s %s: %w", name, args[0], err)
	}
	return out, nil
}
