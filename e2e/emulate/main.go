// Command emulate boots kernels that this machine does not have, in an emulator, and runs the tests of the sandbox and of
// the control groups on them (R4, R5): another processor, other levels of Landlock, and a cgroup v2 with its controllers.
// Arguments name machines; without arguments it boots all.
//
// It needs Debian's apt and the packages qemu-system-x86 and qemu-system-arm, and no privilege: the kernels come from the
// archive that this machine uses, through an apt with separate folders, and are kept in .cache/emulate.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// machine is a kernel and the levels that must be found there.
type machine struct {
	suite    string // of Debian
	arch     string // Debian's name and Go's
	landlock int    // ABI
}

func (m machine) name() string { return m.suite + "-" + m.arch }

var machines = []machine{
	{"bullseye", "amd64", 0}, // Linux 5.10, before Landlock
	{"bookworm", "amd64", 2}, // Linux 6.1: no TCP, no truncation
	{"bookworm", "arm64", 2},
	{"trixie", "amd64", 6}, // Linux 6.12
	{"trixie", "arm64", 6},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "emulate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, names []string) error {
	chosen := slices.DeleteFunc(slices.Clone(machines), func(m machine) bool {
		return len(names) > 0 && !slices.Contains(names, m.name())
	})
	if len(chosen) == 0 || len(names) > len(chosen) {
		var all []string
		for _, m := range machines {
			all = append(all, m.name())
		}
		return fmt.Errorf("machines: %s", strings.Join(all, ", "))
	}
	cache, err := openCache(ctx)
	if err != nil {
		return err
	}
	var summary []string
	var errs []error
	for _, m := range chosen {
		begun := time.Now()
		line, err := emulate(ctx, cache, m)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.name(), err))
		}
		summary = append(summary, fmt.Sprintf("%-15s %s, %s", m.name(), line, time.Since(begun).Round(time.Second)))
	}
	fmt.Printf("\n%s\n", strings.Join(summary, "\n"))
	return errors.Join(errs...)
}

// emulate boots a machine and returns a line with the result.
func emulate(ctx context.Context, cache string, m machine) (string, error) {
	dir := filepath.Join(cache, m.name())
	if err := fetch(ctx, cache, dir, m); err != nil {
		return "not fetched", err
	}
	if err := pack(ctx, dir, m); err != nil {
		return "not built", err
	}
	return boot(ctx, dir, m)
}

func openCache(ctx context.Context) (string, error) {
	root, err := output(ctx, nil, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return "", fmt.Errorf("finding the repository: %w", err)
	}
	dir := filepath.Join(strings.TrimSpace(root), ".cache", "emulate")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("making the cache: %w", err)
	}
	return dir, nil
}

// output runs a program and returns its standard output.
func output(ctx context.Context, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	var said strings.Builder
	cmd.Stderr = &said
	data, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", name, err, said.String())
	}
	return string(data), nil
}
