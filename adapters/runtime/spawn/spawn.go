// Package spawn runs the inference runtime: it spawns, kills and health-checks it, and does nothing else (R1).
//
// Spawn verifies the files that it executes (M9, M10), and starts the runtime in its own process group with a newly built
// environment (R2), confined (R4) and limited (R5). It returns a Handle with the process id and Kill. Health requests the
// back end's health and requires that our own child answers (R3). Reclaim ends the processes of an earlier daemon (R7).
//
// On Linux the runtime is reached through a helper stage of our own binary. The main function of a
// program that spawns calls
//
//	if spawn.IsStage() {
//		spawn.StageMain()
//	}
//
// before anything else. The stage confines itself, attempts operations that must now fail, reports the level and becomes
// the runtime by executing an open descriptor. The process id never changes, and the child ends with the daemon. On
// macOS the stage stays as the parent and holds a lifeline; on Windows a job object is used. Neither ran on a real
// machine: the lifeline is tested on Linux, the job object under Wine.
package spawn

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"companion/messages"
)

// Mode says what to do when the sandbox is weaker than the kernel supports.
type Mode string

// There is no mode "off".
const (
	Require Mode = "require" // refuse the start
	Prefer  Mode = "prefer"  // start, and report the level
)

// Spec describes one start.
type Spec struct {
	Model   messages.VerifiedModel
	Runtime messages.VerifiedRuntime
	// RunDir is private to the user. Each start makes a folder in it for its socket.
	RunDir string
	// RecordPath is where the identity of the child is written (R7), in a private folder.
	RecordPath string
	Context    int // tokens of each request
	// ShareContext: the requests share the memory of one context, and the caller keeps them within it. The runtime must
	// have the option (CanShareContext).
	ShareContext bool
	Threads      int   // 0: the runtime chooses
	MaxInFlight  int   // requests that the runtime handles at once
	MemoryLimit  int64 // bytes, 0: none
	GPU          bool  // device files are allowed
	Sandbox      Mode
	// Features are the options that this runtime has. The next three fields have no effect without theirs.
	Features    Features
	Speculate   bool          // speculative decoding with drafts from the text so far
	PromptCache int64         // bytes for prompts that left their slot, 0: none
	SleepAfter  time.Duration // idle time after which the model gives its memory back, 0: never
	Background  bool          // the user's other programs come first
	// Line receives each scrubbed line of output, on a goroutine that ends before Exit is sent;
	// nil: lines are dropped.
	Line func(string)
}

// Started is a runtime that has been executed. It may not listen yet.
type Started struct {
	Handle  *Handle
	BackEnd messages.BackEnd
	Sandbox messages.Sandbox
	// Speculates says that the runtime was started with speculative decoding.
	Speculates bool
	// Sleeps says that the runtime was started to release the model's memory when it is idle.
	Sleeps bool
	// Exit receives one report, after the whole group has ended and was reaped.
	Exit <-chan messages.ExitReport
	// Panics receives the value of a panic of this package's goroutines or of Spec.Line. The receiver of
	// Exit must panic with this value and kill the runtime, which may no longer be watched.
	Panics <-chan any
}

// killPatience bounds each wait for the end of a process after SIGKILL. A process that waits for a dead file server or a
// broken device ends only when that wait ends. The signal stays pending until then.
var killPatience = 10 * time.Second

// Handle controls a running runtime.
type Handle struct {
	group *group
	done  chan struct{}
	// unended is closed when the runtime was given up: it did not end within killPatience after SIGKILL.
	unended chan struct{}
	giveUp  func()
}

// Unended reports whether the runtime was given up: SIGKILL has been sent, and the kernel has not ended it. Exit has been
// sent nevertheless.
func (h *Handle) Unended() bool {
	select {
	case <-h.unended:
		return true
	default:
		return false
	}
}

// PID is the process id of the runtime.
func (h *Handle) PID() int { return h.group.pid() }

// Kill ends the group: SIGTERM first, and SIGKILL after grace or when ctx ends (R6). It returns when the group has ended
// and was reaped. It may be called concurrently and repeatedly.
func (h *Handle) Kill(ctx context.Context, grace time.Duration) {
	h.group.terminate()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-h.done:
		return
	case <-h.unended:
		return
	case <-timer.C:
	case <-ctx.Done():
	}
	h.group.kill()
	timer.Reset(killPatience)
	select {
	case <-h.done:
	case <-h.unended:
	case <-timer.C:
		h.giveUp()
	}
}

// Spawn starts the runtime. A failure is an *Error; then no process and no file is left. It hashes the files of the
// runtime, which takes tenths of a second, so call it outside an actor's loop.
func Spawn(spec Spec) (Started, error) {
	prepared, err := prepare(spec)
	if err != nil {
		return Started{}, err
	}
	return prepared.run()
}

func (p *preparation) run() (Started, error) {
	result := make(chan outcome, 1)
	go p.live(result)
	r := <-result
	if r.panicked != nil {
		panic(r.panicked)
	}
	return r.started, r.err
}

// outcome is the result of a launch: exactly one field is set.
type outcome struct {
	started  Started
	err      error
	panicked any
}

// live launches the runtime, sends the result, and returns after the runtime's end.
func (p *preparation) live(result chan<- outcome) {
	var group *group
	done := make(chan struct{})
	// The parent-death signal follows the thread that forked, so the thread must live as long as the child (R2).
	runtime.LockOSThread()
	defer p.close()
	defer func() {
		if panicked := recover(); panicked == nil {
			runtime.UnlockOSThread()
		} else {
			// The thread stays locked: it ends here, and so does a child that has no group yet.
			if group != nil {
				group.kill()
			}
			hand(p.output.panics, panicked)
			select {
			case result <- outcome{panicked: panicked}:
			default: // it was started, so its owner receives from Panics
			}
		}
		close(done)
	}()
	group, level, err := p.launch()
	if err != nil {
		result <- outcome{err: err}
		return
	}
	handle, exit, await := p.watch(group, done)
	result <- outcome{started: Started{handle, p.backEnd, level, p.spec.speculates(), p.spec.sleeps(), exit, p.output.panics}}
	await()
}

// watch returns the handle of a runtime, the channel of its one exit report, and await, which returns when the group has
// ended and was reaped. The report comes then, or when the runtime is given up; a late end of that one then touches
// nothing of the next runtime's, such as the record.
func (p *preparation) watch(g *group, done chan struct{}) (handle *Handle, exit chan messages.ExitReport, await func()) {
	exit = make(chan messages.ExitReport, 1)
	var once sync.Once
	finish := func(ended ending) {
		p.remove()
		exit <- report(ended, p.output)
	}
	handle = &Handle{group: g, done: done, unended: make(chan struct{})}
	handle.giveUp = func() {
		once.Do(func() {
			close(handle.unended)
			finish(ending{code: -1, unended: true})
		})
	}
	return handle, exit, func() {
		ended := g.wait()
		once.Do(func() { finish(ended) })
	}
}

// hand sends a panic value to the owner of the runtime. One value is enough to end it.
func hand(panics chan<- any, p any) {
	select {
	case panics <- p:
	default:
	}
}

// preparation holds everything that a launch opens and must release.
type preparation struct {
	spec       Spec
	model      *os.File
	further    []further
	executable *os.File
	dir        string // folder of this start: the socket and the child's HOME
	backEnd    messages.BackEnd
	output     *output
	ask        bool // only ask for the options
}

func prepare(spec Spec) (*preparation, error) {
	if spec.Sandbox != Require && spec.Sandbox != Prefer {
		return nil, &Error{Reason: messages.ReasonSpawnFailed, Doing: "choosing the sandbox", Err: errors.New("mode is neither require nor prefer")}
	}
	model, err := OpenModel(spec.Model)
	if err != nil {
		return nil, err
	}
	executable, err := openRuntime(spec.Runtime)
	if err != nil {
		return nil, errors.Join(err, model.Close())
	}
	p := &preparation{spec: spec, model: model, executable: executable}
	if p.dir, err = os.MkdirTemp(spec.RunDir, startPrefix); err != nil {
		p.close()
		return nil, failed("making the folder of this start", err)
	}
	if p.backEnd, err = backEndIn(p.dir); err != nil {
		p.close()
		_ = os.RemoveAll(p.dir)
		return nil, failed("choosing where the runtime listens", err)
	}
	if err := p.openFurther(); err != nil {
		p.close()
		_ = os.RemoveAll(p.dir)
		return nil, err
	}
	secret := []string{spec.Model.Path, spec.Runtime.Dir, p.dir, spec.RunDir}
	for _, part := range spec.Model.Parts {
		secret = append(secret, part.Path)
	}
	p.output = newOutput(spec.Line, secret...)
	return p, nil
}

// startPrefix begins the name of each start's folder, so that Reclaim finds leftover ones.
const startPrefix = "backend-"

func (p *preparation) close() {
	_ = p.model.Close()
	for _, f := range p.further {
		_ = f.file.Close()
	}
	_ = p.executable.Close()
	if p.output != nil {
		p.output.close()
	}
}

// remove deletes the files that must not outlive the child.
func (p *preparation) remove() {
	p.output.close()
	_ = os.RemoveAll(p.dir)
	_ = os.Remove(p.spec.RecordPath)
}

// arguments is the runtime's argument vector. It contains no path of a file of the model: the runtime opens them through the
// descriptors that were checked.
func (p *preparation) arguments(of places) []string {
	s := p.spec
	if p.ask {
		return []string{filepath.Base(s.Runtime.Executable), "--help"}
	}
	slots := max(s.MaxInFlight, 1)
	tokens := s.Context * slots // the runtime divides its context among the slots
	if s.ShareContext {
		tokens = s.Context
	}
	args := []string{
		filepath.Base(s.Runtime.Executable),
		"--alias", s.Model.Name,
		"--model", of.model,
		"--ctx-size", fmt.Sprint(tokens),
		"--parallel", fmt.Sprint(slots),
		// A kept-alive connection holds a thread: one per connection of the front door, and one per probe.
		"--threads-http", fmt.Sprint(2*slots + 2),
		// By default it caches old prompts, up to 8 GiB of them.
		"--cache-ram", fmt.Sprint(s.PromptCache >> 20),
		"--offline", "--no-webui", "--no-slots", "--log-colors", "off",
	}
	args = append(args, backEndArguments(p.backEnd)...)
	if s.ShareContext {
		args = append(args, shareOption)
	}
	if s.Threads > 0 {
		args = append(args, "--threads", fmt.Sprint(s.Threads))
	}
	args = append(args, s.optional(of)...)
	args = append(args, s.ofModel(of)...)
	if s.Model.Embedding {
		// An input is computed in one batch, which holds 512 tokens by default.
		batch := fmt.Sprint(s.Context)
		args = append(args, "--embeddings", "--batch-size", batch, "--ubatch-size", batch)
	}
	if !s.GPU {
		args = append(args, "--device", "none")
	}
	return args
}

// ending is how the leader of a group ended: an exit status, or a signal with status -1.
type ending struct {
	code   int
	signal string
	// illegal: it executed an instruction that this processor does not have.
	illegal bool
	// outOfMemory: the kernel killed it because its control group reached the memory limit.
	outOfMemory bool
	// unended: it was given up, and may still wait in the kernel for its end.
	unended bool
}

func report(e ending, o *output) messages.ExitReport {
	lines := o.lines()
	if e.illegal {
		lines = append(lines, "the processor lacks instructions this runtime was built for")
	}
	if e.outOfMemory {
		lines = append(lines, "the kernel killed the runtime: out of memory within its limit")
	}
	if e.unended {
		lines = append(lines, "the kernel has not ended the runtime since SIGKILL: it waits for a file server or a device")
	}
	return messages.ExitReport{
		At: time.Now(), Code: e.code, Signal: e.signal,
		Reason: messages.ReasonProcessExited, LastLines: lines,
	}
}

// locale returns the daemon's language variables if they are valid: other variables configure the runtime (R2).
func locale() []string {
	var env []string
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		if (name == "LANG" || strings.HasPrefix(name, "LC_")) && localeName.MatchString(value) {
			env = append(env, entry)
		}
	}
	return env
}
