//go:build linux

// Command guest is process 1 and the only program of an emulated machine (e2e/emulate): it mounts the usual file systems,
// runs test binaries, and switches the machine off.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"companion/e2e/emulate/plan"
)

func main() {
	if err := run(); err != nil {
		fmt.Println(plan.ErrorLine + err.Error())
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println(plan.ErrorLine + err.Error())
	}
	select {} // process 1 must not end
}

func run() error {
	unix.Umask(0o022)
	if err := errors.Join(mountAll(), loopbackUp(), environment()); err != nil {
		return err
	}
	data, err := os.ReadFile(plan.File)
	if err != nil {
		return fmt.Errorf("reading the plan: %w", err)
	}
	var suites []plan.Suite
	if err := json.Unmarshal(data, &suites); err != nil {
		return fmt.Errorf("reading the plan: %w", err)
	}
	facts, err := look()
	if err != nil {
		return err
	}
	fmt.Println() // ends the line that the firmware has begun
	say(plan.FactsLine, facts)
	groups, err := makeGroups()
	if err != nil {
		return err
	}
	for _, suite := range suites {
		fmt.Println(plan.BeginLine + suite.Name)
		status, err := runSuite(suite, groups)
		if err != nil {
			return fmt.Errorf("running %s: %w", suite.Name, err)
		}
		say(plan.EndedLine, plan.Ended{Name: suite.Name, Status: status})
	}
	return nil
}

func say(line string, value any) {
	data, err := json.Marshal(value)
	if err != nil {
		data = []byte(err.Error())
	}
	fmt.Printf("%s%s\n", line, data)
}

func mountAll() error {
	var errs []error
	for _, m := range []struct{ kind, path, options string }{
		{"proc", "/proc", ""}, {"sysfs", "/sys", ""}, {"devtmpfs", "/dev", ""}, {"tmpfs", "/tmp", "mode=1777"},
		{"cgroup2", cgroupRoot, ""},
	} {
		_ = os.MkdirAll(m.path, 0o755)
		if err := unix.Mount(m.kind, m.path, m.kind, 0, m.options); err != nil {
			errs = append(errs, fmt.Errorf("mounting %s: %w", m.kind, err))
		}
	}
	// Every system mounts these: security modules of the kernel look up here what is executed by descriptor.
	errs = append(errs, os.Symlink("/proc/self/fd", "/dev/fd"))
	return errors.Join(errs...)
}

// loopbackUp starts the loopback interface: the hostile runtime attempts to dial on it.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("starting the loopback interface: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("starting the loopback interface: %w", err)
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("starting the loopback interface: %w", err)
	}
	return nil
}

// environment is the environment that tests expect.
func environment() error {
	return errors.Join(
		os.Setenv("PATH", "/bin"), os.Setenv("HOME", "/tmp"), os.Setenv("SPAWNTEST_RUNTIME", plan.Hostile),
		os.WriteFile("/proc/sys/kernel/printk", []byte("1"), 0),
	)
}

// seccomp reports whether the kernel supports filters: it checks the program last, whose address is invalid here.
func seccomp() bool {
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, 0)
	return errno == unix.EFAULT
}

func look() (plan.Facts, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return plan.Facts{}, fmt.Errorf("asking for the kernel's name: %w", err)
	}
	facts := plan.Facts{Release: unix.ByteSliceToString(name.Release[:]), Seccomp: seccomp()}
	if abi, err := ll.LandlockGetABIVersion(); err == nil {
		facts.Landlock = abi
	}
	controllers, err := os.ReadFile(cgroupRoot + "/cgroup.controllers")
	if err != nil {
		return plan.Facts{}, fmt.Errorf("reading the controllers: %w", err)
	}
	facts.Controllers = strings.Fields(string(controllers))
	return facts, nil
}
