// Package probe observes the load of one process, the runtime's own: resident memory and share of
// the processors through gopsutil, and GPU memory as an aggregate of the devices through NVML. No
// other process is listed, read, named or kept, and no privilege is asked for (P1).
package probe

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/shirou/gopsutil/v3/process"

	"companion/messages"
)

// Probe remembers what it needs between two observations: the processor time so far. It has one
// owner.
type Probe struct {
	gpu  gpu
	last messages.Observation
}

// gpu reads the memory in use on all devices, in bytes, or 0 when there is no way to know.
type gpu interface {
	used() int64
	close()
}

// New makes a probe. NVML is loaded at the first observation; a machine without it shows 0.
func New() *Probe { return &Probe{gpu: newGPU()} }

// Close gives NVML back.
func (p *Probe) Close() { p.gpu.close() }

// Observe returns the load of the process pid at now. The processor share is that since the
// observation before, of all processors, from 0 to 100; a first observation counts from the start of
// the process. An error says that the process cannot be observed; Failed is set then.
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
	// Not NewProcess: it asks about more than this process.
	watched := &process.Process{Pid: int32(pid)}
	memory, err := watched.MemoryInfoWithContext(ctx)
	if err != nil {
		return none, err
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

// share is the part of all processors, in percent, that used seconds are of the time that passed.
// Processor time comes in ticks of 10 ms, so that a short interval can seem to hold more than there is.
func share(used float64, passed time.Duration, processors int) float64 {
	if passed <= 0 || used <= 0 {
		return 0
	}
	return min(100*used/passed.Seconds()/float64(processors), 100)
}
