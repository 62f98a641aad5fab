package spawn

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"companion/adapters/lowlatency"
	"companion/adapters/runtime/spawn/sandbox"
	"companion/messages"
)

// plan says what the stage becomes, and creates the canaries that it must not reach.
func (p *preparation) plan() (plan, error) {
	loader, err := interpreter(p.executable)
	if errors.Is(err, errNotProgram) { // the bytes are the signed ones; they cannot run here
		return plan{}, failed("starting the runtime", err)
	}
	if err != nil {
		return plan{}, distrust(p.spec.Runtime, messages.ReasonBinaryUntrusted, err)
	}
	policy := sandbox.Policy{
		Loader:    loader,
		ReadFiles: append(p.descriptors(), readableFiles...),
		ReadDirs:  slices.Clone(readableDirs),
		Socket:    p.backEnd.Address,
		// This bounds one file, not all files together; a control group counts them all.
		AnonymousFile: p.spec.MemoryLimit,
	}
	if p.spec.Runtime.Pinned {
		policy.ReadDirs = append(policy.ReadDirs, p.spec.Runtime.Dir)
	} else {
		allowBeside(&policy, filepath.Join(p.spec.Runtime.Dir, p.spec.Runtime.Executable))
	}
	// NixOS and Guix keep the C library in the folder of the loader.
	if slices.ContainsFunc(storeDirs, func(dir string) bool { return within(loader, dir) }) {
		policy.ReadFiles = append(policy.ReadFiles, libraries(filepath.Dir(loader))...)
	}
	if p.spec.GPU {
		if policy.Devices = gpuDevices(); len(policy.Devices) > 0 {
			policy.ReadDirs = append(policy.ReadDirs, gpuDirs...)
		}
	}
	if policy.Canary, err = p.plantCanary(); err != nil {
		return plan{}, err
	}
	policy.Canary.Outside = outside(policy)
	return plan{
		Parent:      os.Getpid(),
		Args:        p.arguments(p.places()),
		Further:     len(p.further),
		Env:         p.environment(),
		MemoryLimit: p.spec.MemoryLimit, LowLatency: lowlatency.Enabled(), Background: p.spec.Background,
		Mode:   p.spec.Sandbox,
		Policy: policy,
	}, nil
}

// plantCanary creates two files that must stay closed: one among the sockets of the runtimes, and one in the folder of
// the record. The first folder exists for one session, the second is in the user's home, so that a rule that opens
// either is detected.
func (p *preparation) plantCanary() (sandbox.Canary, error) {
	canary := sandbox.Canary{Dir: p.spec.RunDir}
	for _, dir := range []string{p.spec.RunDir, filepath.Dir(p.spec.RecordPath)} {
		file, err := os.CreateTemp(dir, canaryPrefix)
		if err != nil {
			removeAll(canary.Files)
			return sandbox.Canary{}, fmt.Errorf("planting the canary: %w", pathless(err))
		}
		_ = file.Close()
		canary.Files = append(canary.Files, file.Name())
	}
	return canary, nil
}

// outside names what exists on most systems and must stay closed to the runtime, except a home folder that the policy
// opens on purpose: an unpinned program may lie directly in it.
func outside(policy sandbox.Policy) []string {
	paths := []string{"/", "/etc/hostname", "/proc/1/cmdline"}
	home, err := os.UserHomeDir()
	if err != nil {
		return paths
	}
	if home, err = filepath.EvalSymlinks(home); err != nil {
		return paths
	}
	if !slices.ContainsFunc(slices.Concat(policy.ReadDirs, policy.ListDirs), func(dir string) bool { return within(home, dir) }) {
		paths = append(paths, home)
	}
	return paths
}

// allowBeside allows an unpinned program to read the libraries in its folder, which may be the user's home. Where a
// library has variants for processors, it also allows listing the file names, because llama.cpp searches them.
func allowBeside(policy *sandbox.Policy, executable string) {
	dir := filepath.Dir(executable)
	beside := libraries(dir)
	policy.ReadFiles = append(policy.ReadFiles, beside...)
	if slices.ContainsFunc(beside, func(path string) bool {
		return strings.HasPrefix(filepath.Base(path), "libggml-cpu-")
	}) {
		policy.ListDirs = append(policy.ListDirs, dir)
	}
}

// libraries lists the shared libraries directly in dir. A link is resolved first.
func libraries(dir string) []string {
	isLibrary := func(name string) bool { return strings.HasSuffix(name, ".so") || strings.Contains(name, ".so.") }
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var found []string
	for _, entry := range entries {
		if !isLibrary(entry.Name()) {
			continue
		}
		path, err := filepath.EvalSymlinks(filepath.Join(dir, entry.Name()))
		if err != nil || filepath.Dir(path) != dir || !isLibrary(filepath.Base(path)) {
			continue
		}
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
			found = append(found, path)
		}
	}
	return found
}

// Files that llama-server reads in addition to its own: libraries, the loader's cache, the time zone, and the
// properties of the processor.
var (
	readableFiles = []string{
		"/etc/ld.so.cache", "/etc/localtime", "/proc/cpuinfo", "/proc/meminfo", "/dev/urandom",
	}
	libraryDirs  = []string{"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"}
	readableDirs = append(slices.Clone(libraryDirs), "/usr/share/zoneinfo", "/sys/devices/system/cpu", "/sys/devices/system/node")
	gpuDirs      = []string{
		"/usr/share/vulkan", "/etc/vulkan", "/usr/share/glvnd", "/usr/share/drirc.d", "/sys/class/drm",
		"/sys/dev/char", "/sys/devices", "/sys/bus/pci", "/proc/driver/nvidia",
	}
)

// devicePatterns match the device files of GPUs.
var devicePatterns = []string{"/dev/dri", "/dev/kfd", "/dev/nvidia*"}

// gpuDevices lists the device files of this machine's GPUs.
func gpuDevices() []string {
	var devices []string
	for _, pattern := range devicePatterns {
		found, _ := filepath.Glob(pattern)
		devices = append(devices, found...)
	}
	return devices
}

// HasGPU reports whether the machine has a GPU device file.
func HasGPU() bool { return len(gpuDevices()) > 0 }
