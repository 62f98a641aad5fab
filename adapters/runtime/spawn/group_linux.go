package spawn

import (
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"companion/adapters/runtime/spawn/sandbox"
	"companion/messages"
)

// stageDeadline bounds the time from starting the stage to executing the runtime: milliseconds, on a
// machine that is not drowning.
const stageDeadline = 10 * time.Second

// group is a running process group. mu guards signals against reaping, so that no signal goes to a
// number that was given back.
type group struct {
	cmd    *exec.Cmd
	mu     sync.Mutex
	reaped bool
}

func (g *group) pid() int { return g.cmd.Process.Pid }

// launch runs the stage until it has become the runtime. The calling goroutine is locked to its
// thread and calls wait.
func (p *preparation) launch() (*group, messages.Sandbox, error) {
	var none messages.Sandbox
	canary, err := os.CreateTemp(p.spec.RunDir, canaryPrefix)
	if err != nil {
		return nil, none, failed("planting the canary", err)
	}
	defer func() { _ = os.Remove(canary.Name()) }()
	_ = canary.Close()
	plan, err := p.plan(canary.Name())
	if err != nil {
		p.remove()
		return nil, none, failed("planning the launch", err)
	}
	g, said, err := p.start(plan)
	if err != nil {
		p.remove()
		return nil, none, err
	}
	if err := writeRecord(p.spec.RecordPath, g.pid(), p.executable); err != nil {
		g.abandon()
		p.remove()
		return nil, none, failed("recording the child's identity", err)
	}
	return g, said.Sandbox, nil
}

// abandon ends a child that cannot be used.
func (g *group) abandon() {
	g.kill()
	g.wait()
}

func (p *preparation) plan(canary string) (plan, error) {
	loader, err := interpreter(p.executable)
	if err != nil {
		return plan{}, err
	}
	policy := sandbox.Policy{
		Loader:    loader,
		ReadFiles: append([]string{fmt.Sprintf("/proc/self/fd/%d", modelFD)}, readableFiles...),
		ReadDirs:  append([]string{filepath.Dir(filepath.Join(p.spec.Runtime.Dir, p.spec.Runtime.Executable))}, readableDirs...),
		SocketDir: p.dir,
		Canary:    sandbox.Canary{File: canary, Dir: p.spec.RunDir},
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

// environment is the child's whole environment (R2). The home is its own empty folder, where it may
// write nothing.
func (p *preparation) environment() []string {
	return append(locale(), "HOME="+p.dir, "TMPDIR="+p.dir)
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

func (p *preparation) start(plan plan) (*group, stageReport, error) {
	var none stageReport
	planned, err := json.Marshal(plan)
	if err != nil {
		return nil, none, failed("writing the plan", err)
	}
	pipes, err := newStagePipes(planned)
	if err != nil {
		return nil, none, failed("making the stage's pipes", err)
	}
	defer pipes.close()
	write, err := p.output.open()
	if err != nil {
		return nil, none, failed("reading the runtime's output", err)
	}
	cmd := &exec.Cmd{
		// Our own program even if its file was replaced meanwhile.
		Path: "/proc/self/exe", Args: []string{"companion", stageArgument}, Env: plan.Env, Dir: "/",
		Stdout: write, Stderr: write,
		ExtraFiles:  []*os.File{p.model, pipes.planRead, pipes.reportWrite, p.executable},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	}
	err = cmd.Start()
	p.output.closeWriter()
	if err != nil {
		return nil, none, failed("starting the helper stage", err)
	}
	g := &group{cmd: cmd}
	said, err := pipes.read()
	if err != nil {
		g.abandon()
		return nil, none, err
	}
	return g, said, nil
}

// stagePipes carry the plan to the stage and its report back.
type stagePipes struct{ planRead, reportRead, reportWrite *os.File }

func newStagePipes(plan []byte) (*stagePipes, error) {
	planRead, planWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	// The plan is smaller than a pipe's buffer, so that writing does not wait for a reader.
	_, err = planWrite.Write(plan)
	if err = errors.Join(err, planWrite.Close()); err != nil {
		return nil, errors.Join(err, planRead.Close())
	}
	reportRead, reportWrite, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, planRead.Close())
	}
	return &stagePipes{planRead, reportRead, reportWrite}, nil
}

func (s *stagePipes) close() {
	_ = s.planRead.Close()
	_ = s.reportRead.Close()
	_ = s.reportWrite.Close()
}

// read returns what the stage reported before it became the runtime, or an *Error with what it
// could not do. The end of the pipe is the execution.
func (s *stagePipes) read() (stageReport, error) {
	_ = s.reportWrite.Close()
	_ = s.reportRead.SetReadDeadline(time.Now().Add(stageDeadline))
	decoder := json.NewDecoder(io.LimitReader(s.reportRead, 1<<16))
	var said, more stageReport
	if err := decoder.Decode(&said); err != nil {
		return said, failed("waiting for the helper stage", errors.New("it ended, or took too long, without a report"))
	}
	if said.Refused != "" {
		return said, &Error{
			Reason: messages.ReasonSandboxUnavailable, Doing: "confining the runtime",
			Err: errors.New("not refused to a confined process: " + said.Refused),
		}
	}
	if said.Failed != "" {
		return said, failed("preparing the runtime", errors.New(said.Failed))
	}
	switch err := decoder.Decode(&more); {
	case errors.Is(err, io.EOF):
		return said, nil
	case err != nil:
		return said, failed("waiting for the runtime's execution", pathless(err))
	default:
		return said, failed("starting the runtime", errors.New(more.Failed))
	}
}

// signalGroup signals the whole group, unless its leader was reaped: its number may be another's.
func (g *group) signalGroup(signals ...unix.Signal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.reaped {
		return
	}
	for _, s := range signals {
		_ = unix.Kill(-g.pid(), s)
	}
}

// terminate asks politely. A stopped process must be continued to hear it.
func (g *group) terminate() { g.signalGroup(unix.SIGTERM, unix.SIGCONT) }

func (g *group) kill() { g.signalGroup(unix.SIGKILL) }

// wait returns when the leader has ended (the kernel wakes it, R9), the rest of its group is killed
// and gone, and the leader is reaped (R6).
func (g *group) wait() ending {
	for {
		// Not reaped yet: the number stays ours while the rest of the group is killed.
		err := unix.Waitid(unix.P_PID, g.pid(), nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			break
		}
	}
	g.mu.Lock()
	_ = unix.Kill(-g.pid(), unix.SIGKILL)
	_ = g.cmd.Wait()
	g.reaped = true
	g.mu.Unlock()
	g.awaitEmpty()

	status, _ := g.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return ending{code: -1, signal: status.Signal().String(), illegal: status.Signal() == syscall.SIGILL}
	}
	return ending{code: status.ExitStatus()}
}

// awaitEmpty waits until no member of the killed group is left; as long as one is, the number is not
// given to anybody. There is no notification for strangers' children, and what is left has milliseconds to live.
func (g *group) awaitEmpty() {
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if unix.Kill(-g.pid(), 0) == unix.ESRCH {
			return
		}
	}
}
