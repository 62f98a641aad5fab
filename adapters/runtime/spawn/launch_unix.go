//go:build unix

package spawn

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"companion/adapters/lowlatency"
	"companion/messages"
)

// stageDeadline bounds the time from sending the plan to executing the runtime, which takes milliseconds on a machine
// that is not overloaded.
const stageDeadline = 10 * time.Second

// backEndIn returns the socket path of a start: mode 0600 by the child's umask, in a folder of mode 0700 (R3).
// llama-server treats a host that ends in ".sock" as a path.
func backEndIn(dir string) (messages.BackEnd, error) {
	return messages.BackEnd{Network: "unix", Address: filepath.Join(dir, "llama.sock")}, nil
}

func backEndArguments(b messages.BackEnd) []string { return []string{"--host", b.Address} }

// environment is the child's whole environment (R2). HOME is an empty folder of this start, in which the child may
// write nothing.
func (p *preparation) environment() []string {
	return append(locale(), "HOME="+p.dir, "TMPDIR="+p.dir)
}

// launch runs the stage until it has become the runtime. The calling goroutine is locked to its thread and calls wait.
// Starting this large program takes longer than confining it, so the stage starts first, and waits for its plan while
// the runtime's files are hashed.
func (p *preparation) launch() (*group, messages.Sandbox, error) {
	g, level, namespaces, err := p.launchOnce(true)
	var failure *Error
	if namespaces && errors.As(err, &failure) && (failure.Reason == messages.ReasonSpawnFailed || failure.Reason == messages.ReasonSandboxUnavailable) {
		// Some systems make the namespaces and then deny operations in them.
		_ = os.Remove(p.backEnd.Address)
		g, level, _, err = p.launchOnce(false)
	}
	if err != nil {
		p.remove()
	}
	return g, level, err
}

// launchOnce runs one stage, in its own namespaces if they are wanted and the system offers them.
func (p *preparation) launchOnce(wanted bool) (g *group, level messages.Sandbox, namespaces bool, err error) {
	g, pipes, err := p.startStage(wanted)
	if err != nil {
		return nil, level, false, err
	}
	defer pipes.close()
	said, err := p.become(pipes)
	if err == nil {
		g.adopt(said)
		if err = writeRecord(p.spec.RecordPath, g.pid(), p.executable); err != nil {
			err = failed("recording the child's identity", err)
		}
	}
	if err != nil {
		g.abandon()
		return nil, level, pipes.namespaces, err
	}
	return g, said.Sandbox, pipes.namespaces, nil
}

// become verifies the program of the runtime and lets the stage execute it.
func (p *preparation) become(pipes *stagePipes) (stageReport, error) {
	if err := verifyRuntime(p.spec.Runtime, p.executable); err != nil {
		return stageReport{}, err
	}
	plan, err := p.plan()
	var refusal *Error
	if errors.As(err, &refusal) {
		return stageReport{}, refusal
	} else if err != nil {
		return stageReport{}, failed("planning the launch", err)
	}
	defer removeAll(plan.Policy.Canary.Files)
	return p.execute(pipes, plan)
}

func removeAll(files []string) {
	for _, file := range files {
		_ = os.Remove(file)
	}
}

func (p *preparation) execute(pipes *stagePipes, plan plan) (stageReport, error) {
	plan.Policy.OwnNetwork = pipes.namespaces
	if err := pipes.send(plan); err != nil {
		return stageReport{}, failed("sending the plan", err)
	}
	return pipes.read(p.output.panics)
}

// abandon ends a child that cannot be used.
func (g *group) abandon() {
	g.kill()
	ended := make(chan struct{})
	go func() { // ends with the child
		defer close(ended)
		g.wait()
	}()
	select {
	case <-ended:
	case <-time.After(killPatience):
	}
}

func (p *preparation) startStage(namespaces bool) (*group, *stagePipes, error) {
	self, err := ownProgram()
	if err != nil {
		return nil, nil, failed("finding our own program", err)
	}
	pipes, err := newStagePipes()
	if err != nil {
		return nil, nil, failed("making the stage's pipes", err)
	}
	write, err := p.output.open()
	if err != nil {
		pipes.close()
		pipes.closeOurs()
		return nil, nil, failed("reading the runtime's output", err)
	}
	limits := newCgroup(p.spec.MemoryLimit)
	pipes.namespaces = namespaces
	cmd, err := startSeparate(limits, &pipes.namespaces, func(attributes *syscall.SysProcAttr) *exec.Cmd {
		return &exec.Cmd{
			Path: self, Args: []string{"companion", stageArgument}, Env: p.environment(), Dir: "/",
			Stdout: write, Stderr: write, ExtraFiles: pipes.stageFiles(p), SysProcAttr: attributes,
		}
	})
	p.output.closeWriter()
	if err != nil {
		limits.end()
		pipes.close()
		pipes.closeOurs()
		return nil, nil, failed("starting the helper stage", err)
	}
	if p.spec.Background {
		lowlatency.LowerSession(cmd.Process.Pid)
	}
	return &group{cmd: cmd, lifeline: pipes.lifelineWrite, cgroup: limits, notifications: pipes.notifications}, pipes, nil
}

// startSeparate starts the command in its own namespaces, if they are wanted and the system lets this user make them,
// and otherwise without. If it cannot be started in the control group either, it starts outside of the group.
// namespaces returns whether it has its own.
func startSeparate(limits *cgroup, namespaces *bool, command func(*syscall.SysProcAttr) *exec.Cmd) (*exec.Cmd, error) {
	attributes := stageAttributes(limits)
	if *namespaces = *namespaces && separate(attributes); *namespaces {
		if cmd := command(attributes); cmd.Start() == nil {
			return cmd, nil
		}
		*namespaces = false
	}
	if limits != nil {
		if cmd := command(stageAttributes(limits)); cmd.Start() == nil {
			return cmd, nil
		}
	}
	cmd := command(stageAttributes(nil))
	return cmd, cmd.Start()
}

// stagePipes carry the plan to the stage and its report back. The lifeline carries no data: its end of file means that
// the daemon has ended, for systems that have no other way to learn that.
type stagePipes struct {
	planRead, planWrite         *os.File
	reportRead, reportWrite     *os.File
	lifelineRead, lifelineWrite *os.File
	handover                    *os.File // the stage's end, nil if it hands nothing over
	notifications               *notifications
	namespaces                  bool // the stage has its own namespaces
}

func newStagePipes() (*stagePipes, error) {
	var s stagePipes
	var errs [4]error
	s.planRead, s.planWrite, errs[0] = os.Pipe()
	s.reportRead, s.reportWrite, errs[1] = os.Pipe()
	s.lifelineRead, s.lifelineWrite, errs[2] = os.Pipe()
	s.notifications, s.handover, errs[3] = newNotifications()
	if err := errors.Join(errs[:]...); err != nil {
		s.close()
		s.closeOurs()
		return nil, err
	}
	return &s, nil
}

// stageFiles are the descriptors of the stage after the standard three, in numeric order.
func (s *stagePipes) stageFiles(p *preparation) []*os.File {
	// Where nothing is handed over, the number of its descriptor stays closed.
	files := []*os.File{p.model, s.planRead, s.reportWrite, p.executable, s.lifelineRead, s.handover}
	for _, f := range p.further {
		files = append(files, f.file)
	}
	return files
}

// closeOurs closes the descriptors that the group closes once it exists.
func (s *stagePipes) closeOurs() {
	_ = s.lifelineWrite.Close()
	s.notifications.close()
}

// close closes all descriptors except the daemon's ends of lifeline and notifications, which the group closes after it
// is reaped.
func (s *stagePipes) close() {
	for _, f := range []*os.File{s.planRead, s.planWrite, s.reportRead, s.reportWrite, s.lifelineRead, s.handover} {
		_ = f.Close()
	}
}

func (s *stagePipes) send(p plan) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	_ = s.planWrite.SetWriteDeadline(time.Now().Add(stageDeadline))
	_, err = s.planWrite.Write(data)
	return errors.Join(err, s.planWrite.Close())
}

// read returns the stage's report before the execution, or an *Error with the step that failed. It lets the stage
// execute. The end of the pipe means that the runtime was executed.
func (s *stagePipes) read(panics chan any) (stageReport, error) {
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
	if said.Handover {
		if err := s.notifications.begin(panics); err != nil {
			return said, failed("taking over from the helper stage", err)
		}
	}
	switch err := decoder.Decode(&more); {
	case errors.Is(err, io.EOF) && !s.notifications.allowed():
		return said, failed("starting the runtime", errors.New("the stage ended, or executed without being allowed to"))
	case errors.Is(err, io.EOF):
		return said, nil
	case err != nil:
		return said, failed("waiting for the runtime's execution", pathless(err))
	default:
		return said, failed("starting the runtime", errors.New(more.Failed))
	}
}

// endingOf returns how a reaped leader ended.
func endingOf(cmd *exec.Cmd) ending {
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return ending{code: -1, signal: status.Signal().String(), illegal: status.Signal() == syscall.SIGILL}
	}
	return ending{code: status.ExitStatus()}
}
