// Package probe measures resident memory and CPU use of one process, the model runtime, through gopsutil, and
// the GPU memory in use on all devices through NVML. It lists, reads and names no other process and needs no
// privilege (P1).
package probe

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/shirou/gopsutil/v3/process"

	"companion/messages"
)

// errNoMemory: the kernel counts the memory of a process at its first thread. A process whose first thread has ended can
// go on, and no longer shows its memory (P3).
var errNoMemory = errors.New("it shows no resident memory: it ends, or its first thread has ended")

// Probe measures one process at a time and keeps its CPU time between two observations. It is not safe for
// concurrent use.
type Probe struct {
	gpu  gpu
	last messages.Observation
}

// gpu returns the memory in use on all devices, in bytes, or 0 if it cannot be read.
type gpu interface {
	used() int64
	close()
}

// New returns a probe. NVML is loaded at the first observation; without it the GPU memory is 0.
func New() *Probe { return &Probe{gpu: newGPU()} }

// Close releases NVML.
func (p *Probe) Close() { p.gpu.close() }

// Observe returns the load of the process pid at now. The CPU share is a percentage of all processors, from 0
// to 100, since the previous observation or, for the first one, since the start of the process. If the process
// cannot be observed, it returns an error and sets Failed.
func (p *Probe) Observe(ctx context.Context, pid int, now time.Time) (messages.Observation, error) {
	seen, err := p.observe(ctx, pid, now)
	if err != nil {
		p.last = messages.Observation{}
		return messages.Observation{At: now, PID: pid, Failed: true}, fmt.Errorf("observing the runtime: %w", err)
	}
	p.last = seen
	return seen, nil
}

func (p *Probe) observe(ctx context.Context, pid int, now time.Time) (messages.Observation, error) {
	var none messages.Observation
	// NewProcess would read more than this process.
	watched := &process.Process{Pid: int32(pid)}
	memory, err := watched.MemoryInfoWithContext(ctx)
	if err != nil {
		return none, err
	}
	if memory.RSS == 0 {
		return none, errNoMemory
	}
	used, started, err := processorTime(ctx, pid)
	if err != nil {
		return none, err
	}
	since, passed := used-p.last.CPUTime.Seconds(), now.Sub(p.last.At)
	if p.last.PID != pid {
		since = used
		if passed, err = age(started); err != nil {
			return none, err
		}
	}
	return messages.Observation{
		At: now, PID: pid, ResidentBytes: int64(min(memory.RSS, math.MaxInt64)),
		CPUPercent: share(since, passed, runtime.NumCPU()), CPUTime: time.Duration(used * float64(time.Second)), GPUBytes: p.gpu.used(),
	}, nil
}

// share returns used CPU seconds as a percentage of what all processors had in the time that passed. CPU time
// has a resolution of 10 ms, so the result for a short interval is capped at 100.
func share(used float64, passed time.Duration, processors int) float64 {
	if passed <= 0 || used <= 0 {
		return 0
	}
	return min(100*used/passed.Seconds()/float64(processors), 100)
}
