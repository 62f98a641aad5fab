package spawn

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"companion/adapters/runtime/spawn/sandbox"
)

// plan says what the stage becomes, and plants the canary that it must not reach.
func (p *preparation) plan() (plan, error) {
	loader, err := interpreter(p.executable)
	if err != nil {
		return plan{}, err
	}
	canary, err := os.CreateTemp(p.spec.RunDir, canaryPrefix)
	if err != nil {
		return plan{}, fmt.Errorf("planting the canary: %w", pathless(err))
	}
	_ = canary.Close()
	policy := sandbox.Policy{
		Loader:    loader,
		ReadFiles: append([]string{fmt.Sprintf("/proc/self/fd/%d", modelFD)}, readableFiles...),
		ReadDirs:  append([]string{filepath.Dir(filepath.Join(p.spec.Runtime.Dir, p.spec.Runtime.Executable))}, readableDirs...),
		SocketDir: p.dir,
		Canary:    sandbox.Canary{File: canary.Name(), Dir: p.spec.RunDir},
	}
	if p.spec.Runtime.Pinned {
		policy.ReadDirs = append(policy.ReadDirs, p.spec.Runtime.Dir)
	}
	if loader != "" {
		policy.ReadDirs = append(policy.ReadDirs, filepath.Dir(loader))
	}
	if p.spec.GPU {
		if policy.Devices = gpuDevices(); len(policy.Devices) > 0 {
			policy.ReadDirs = append(policy.ReadDirs, gpuDirs...)
		}
	}
	return plan{
		Parent:      os.Getpid(),
		Args:        p.arguments(fmt.Sprintf("/proc/self/fd/%d", modelFD)),
		Env:         p.environment(),
		MemoryLimit: p.spec.MemoryLimit,
		Mode:        p.spec.Sandbox,
		Policy:      policy,
	}, nil
}

// What llama-server reads besides its own files: libraries, the loader's cache, the time zone, and
// what the processor is.
var (
	readableFiles = []string{
		"/etc/ld.so.cache", "/etc/localtime", "/proc/cpuinfo", "/proc/meminfo", "/dev/urandom",
	}
	readableDirs = []string{
		"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo",
		"/sys/devices/system/cpu", "/sys/devices/system/node",
	}
	gpuDirs = []string{
		"/usr/share/vulkan", "/etc/vulkan", "/usr/share/glvnd", "/usr/share/drirc.d", "/sys/class/drm",
		"/sys/dev/char", "/sys/devices", "/sys/bus/pci", "/proc/driver/nvidia",
	}
)

// gpuDevices lists the device files of GPUs that this machine has.
func gpuDevices() []string {
	var devices []string
	for _, pattern := range []string{"/dev/dri", "/dev/kfd", "/dev/nvidia*"} {
		found, _ := filepath.Glob(pattern)
		devices = append(devices, found...)
	}
	return devices
}

// HasGPU reports whether there is a device that the runtime could compute on.
func HasGPU() bool { return len(gpuDevices()) > 0 }

// interpreter returns the loader that the program names, or nothing for a static one.
func interpreter(executable *os.File) (string, error) {
	program, err := elf.NewFile(executable)
	if err != nil {
		return "", errors.New("the runtime is not a program of this system")
	}
	for _, segment := range program.Progs {
		if segment.Type != elf.PT_INTERP {
			continue
		}
		name, err := io.ReadAll(io.LimitReader(segment.Open(), unix.PathMax))
		if err != nil {
			return "", fmt.Errorf("reading the name of the loader: %w", err)
		}
		return strings.TrimRight(string(name), "\x00"), nil
	}
	return "", nil
}
