package spawn

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"

	"companion/messages"
)

// StageMain is not used on Windows, where a job object does the work of the stage.
func StageMain() { os.Exit(1) }

// HasGPU reports true: the runtime's library decides whether it uses one.
func HasGPU() bool { return true }

// group is the runtime in its job object, which ends when its last handle closes: when this process ends, for whatever
// reason, the runtime ends too (R2). Tested under Wine, untested on real machines.
type group struct {
	cmd *exec.Cmd
	job windows.Handle
	mu  sync.Mutex // guards job against use after close
}

func (g *group) pid() int { return g.cmd.Process.Pid }

// launch starts the runtime suspended, so that it runs no instruction outside its job.
func (p *preparation) launch() (*group, messages.Sandbox, error) {
	var none messages.Sandbox
	g, err := p.start()
	if err != nil {
		p.remove()
		return nil, none, err
	}
	if err := writeRecord(p.spec.RecordPath, g.pid(), p.executable); err != nil {
		g.kill()
		g.wait()
		p.remove()
		return nil, none, failed("recording the child's identity", err)
	}
	return g, none, nil
}

func (p *preparation) start() (*group, error) {
	if err := verifyRuntime(p.spec.Runtime, p.executable); err != nil {
		return nil, err
	}
	job, err := newJob(p.spec.MemoryLimit)
	if err != nil {
		return nil, failed("making the job object", err)
	}
	write, err := p.output.open()
	if err != nil {
		_ = windows.CloseHandle(job)
		return nil, failed("reading the runtime's output", err)
	}
	cmd := p.suspended(write)
	err = cmd.Start()
	p.output.closeWriter()
	if err != nil {
		_ = windows.CloseHandle(job)
		return nil, failed("starting the runtime", err)
	}
	g := &group{cmd: cmd, job: job}
	if err := g.confine(); err != nil {
		_ = cmd.Process.Kill()
		g.wait()
		return nil, failed("putting the runtime into its job object", err)
	}
	return g, nil
}

// suspended returns the command that starts the runtime with its first thread suspended.
func (p *preparation) suspended(output *os.File) *exec.Cmd {
	return &exec.Cmd{
		// Windows can neither execute a descriptor nor let the runtime open a model by one. The open files keep the
		// paths from being deleted, and the folders belong to the user.
		Path: p.executable.Name(), Args: p.arguments(p.places()), Env: p.environment(), Dir: p.dir,
		Stdout: output, Stderr: output,
		SysProcAttr: &syscall.SysProcAttr{
			CreationFlags: windows.CREATE_SUSPENDED | windows.CREATE_NEW_PROCESS_GROUP | windows.CREATE_NO_WINDOW,
		},
	}
}

// environment is the child's whole environment (R2): the variables that a Windows program needs.
func (p *preparation) environment() []string {
	env := append(locale(), "TEMP="+p.dir, "TMP="+p.dir, "USERPROFILE="+p.dir)
	if root := os.Getenv("SystemRoot"); root != "" && !strings.ContainsAny(root, "\x00") {
		env = append(env, "SystemRoot="+root)
	}
	return env
}

func newJob(memory int64) (windows.Handle, error) {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return 0, err
	}
	limits := windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION{}
	// One process: the runtime starts no other program (R4).
	limits.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE |
		windows.JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION | windows.JOB_OBJECT_LIMIT_ACTIVE_PROCESS
	limits.BasicLimitInformation.ActiveProcessLimit = 1
	if memory > 0 {
		limits.BasicLimitInformation.LimitFlags |= windows.JOB_OBJECT_LIMIT_JOB_MEMORY
		limits.JobMemoryLimit = uintptr(memory)
	}
	if _, err := windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&limits)), uint32(unsafe.Sizeof(limits))); err != nil {
		return 0, errors.Join(err, windows.CloseHandle(job))
	}
	return job, nil
}

var resumeProcess = windows.NewLazySystemDLL("ntdll.dll").NewProc("NtResumeProcess")

// confine assigns the suspended process to the job and lets it run.
func (g *group) confine() error {
	process, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE|windows.PROCESS_SUSPEND_RESUME, false, uint32(g.pid()))
	if err != nil {
		return err
	}
	defer func() { _ = windows.CloseHandle(process) }()
	if err := windows.AssignProcessToJobObject(g.job, process); err != nil {
		return err
	}
	if status, _, _ := resumeProcess.Call(uintptr(process)); status != 0 {
		return fmt.Errorf("resuming it: status %#x", status)
	}
	return nil
}

// terminate is kill. The only polite signal is a console event, which reaches only processes of this console, and the
// runtime gets none because a window would open with it. The runtime has nothing to save.
func (g *group) terminate() { g.kill() }

func (g *group) kill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.job != 0 {
		_ = windows.TerminateJobObject(g.job, 1)
	}
}

// wait returns when the runtime has ended; closing the job ends all other processes in it (R6, R9).
func (g *group) wait() ending {
	_ = g.cmd.Wait()
	g.mu.Lock()
	_ = windows.CloseHandle(g.job)
	g.job = 0
	g.mu.Unlock()
	code := g.cmd.ProcessState.ExitCode()
	return ending{code: code, illegal: uint32(code) == uint32(windows.STATUS_ILLEGAL_INSTRUCTION)}
}
