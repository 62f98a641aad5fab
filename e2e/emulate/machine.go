package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"companion/e2e/emulate/plan"
)

// guestMemory is in MiB. The hostile program shares 1 GiB when no limit stops it.
const guestMemory = "2048"

// machineDeadline bounds one machine, from boot to power-off.
const machineDeadline = 20 * time.Minute

// boot runs the machine and checks its console output. It prints the output of what failed.
func boot(ctx context.Context, dir string, m machine) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, machineDeadline)
	defer cancel()
	name, arguments := emulator(m)
	cmd := exec.CommandContext(ctx, name, append(arguments,
		"-m", guestMemory, "-smp", "2", "-nographic", "-no-reboot", "-nodefaults", "-nic", "none", "-serial", "stdio",
		"-kernel", filepath.Join(dir, "vmlinuz"), "-initrd", filepath.Join(dir, "initramfs"))...)
	console, err := cmd.StdoutPipe()
	if err != nil {
		return "not booted", err
	}
	cmd.Stderr = os.Stderr
	log, err := os.Create(filepath.Join(dir, "console"))
	if err != nil {
		return "not booted", err
	}
	defer func() { _ = log.Close() }()
	if err := cmd.Start(); err != nil {
		return "not booted", fmt.Errorf("%w; it is in the package qemu-system-x86 or qemu-system-arm", err)
	}
	var v verdict
	readErr := v.read(io.TeeReader(console, log))
	if err := errors.Join(readErr, cmd.Wait(), context.Cause(ctx)); err != nil {
		return v.line(), fmt.Errorf("%w; its console is in %s", err, log.Name())
	}
	return v.line(), v.judge(m)
}

func emulator(m machine) (name string, arguments []string) {
	const kernel = "quiet loglevel=1 panic=-1 rdinit=/init random.trust_cpu=on console="
	if m.arch == "arm64" {
		return "qemu-system-aarch64", []string{"-machine", "virt", "-cpu", "cortex-a72", "-append", kernel + "ttyAMA0"}
	}
	return "qemu-system-x86_64", []string{"-machine", "pc", "-cpu", "max", "-append", kernel + "ttyS0"}
}

// verdict is the result of the console output.
type verdict struct {
	facts   plan.Facts
	errs    []error
	running string
	passed  map[string]int // by suite
	ended   map[string]bool
	skipped []string
	layers  []string // what becomes possible without each layer (TestWhichLayerStops), by suite
}

var outcome = regexp.MustCompile(`^(\s*)--- (PASS|FAIL|SKIP): (\S+)`)

func (v *verdict) read(console io.Reader) error {
	v.passed, v.ended = map[string]int{}, map[string]bool{}
	scanner := bufio.NewScanner(console)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		line := strings.TrimRight(scanner.Text(), "\r")
		v.hear(line)
		if v.running != "" {
			fmt.Println(line)
		}
	}
	return scanner.Err()
}

func (v *verdict) hear(line string) {
	if text, ok := strings.CutPrefix(line, plan.FactsLine); ok {
		if err := json.Unmarshal([]byte(text), &v.facts); err != nil {
			v.errs = append(v.errs, fmt.Errorf("facts: %w", err))
		}
		fmt.Println(line)
	} else if text, ok := strings.CutPrefix(line, plan.BeginLine); ok {
		v.running = text
	} else if text, ok := strings.CutPrefix(line, plan.EndedLine); ok {
		var e plan.Ended
		if err := json.Unmarshal([]byte(text), &e); err != nil || e.Status != 0 {
			v.errs = append(v.errs, fmt.Errorf("%s ended with status %d", e.Name, e.Status))
		}
		v.ended[e.Name], v.running = true, ""
	} else if text, ok := strings.CutPrefix(line, plan.LayersLine); ok {
		v.layers = append(v.layers, v.running+": "+text)
	} else if text, ok := strings.CutPrefix(line, plan.ErrorLine); ok {
		v.errs = append(v.errs, errors.New(text))
	} else if found := outcome.FindStringSubmatch(line); found != nil {
		switch found[2] {
		case "PASS":
			if found[1] == "" {
				v.passed[v.running]++
			}
		case "FAIL":
			v.errs = append(v.errs, errors.New("failed: "+found[3]))
		case "SKIP":
			v.skipped = append(v.skipped, found[3])
		}
	}
}

// judge fails for every level that was not proved on a machine that exists to prove it.
func (v *verdict) judge(m machine) error {
	errs := v.errs
	for _, suite := range suites(m) {
		if !v.ended[suite.Name] || v.passed[suite.Name] == 0 {
			errs = append(errs, fmt.Errorf("%s: %d tests passed, ended: %v", suite.Name, v.passed[suite.Name], v.ended[suite.Name]))
		}
	}
	if v.facts.Landlock != m.landlock || !v.facts.Seccomp {
		errs = append(errs, fmt.Errorf("the kernel has Landlock %d, want %d; seccomp %v", v.facts.Landlock, m.landlock, v.facts.Seccomp))
	}
	for _, name := range []string{"memory", "pids"} {
		if !slices.Contains(v.facts.Controllers, name) {
			errs = append(errs, fmt.Errorf("no controller %s", name))
		}
	}
	for _, name := range v.skipped {
		if !slices.Contains(excluded(m, true), name) {
			errs = append(errs, fmt.Errorf("%s proved nothing and is not on the list of those that need not", name))
		}
	}
	for _, name := range excluded(m, true) {
		if !slices.Contains(v.skipped, name) {
			errs = append(errs, fmt.Errorf("%s is on the list of those that prove nothing, and did not say so", name))
		}
	}
	return errors.Join(errs...)
}

func (v *verdict) line() string {
	total := 0
	for _, n := range v.passed {
		total += n
	}
	found := fmt.Sprintf("Linux %s, Landlock %d, seccomp %v, controllers %s: %d tests passed, %d skipped, %d complaints",
		v.facts.Release, v.facts.Landlock, v.facts.Seccomp, strings.Join(v.facts.Controllers, " "), total, len(v.skipped), len(v.errs))
	return strings.Join(append([]string{found}, v.layers...), "\n\t")
}
