// Package lowlatency holds the scheduler and system-call optimizations that shorten the daemon's delays on
// Linux: time slices, niceness, autogroups and raw non-blocking socket I/O.
//
// Each optimization is a Measure that does nothing but make something faster: without it the program
// behaves the same, only later. One switch, the setting runtime.low_latency, turns all of them off. The
// benchmarks of `task bench-low-latency` leave out one at a time, at link time:
//
//	go test -ldflags '-X companion/adapters/lowlatency.without=raw_socket_io' …
//
// The package belongs to no wing, holds no secret and imports nothing of this module. On other systems than
// Linux every measure is absent.
package lowlatency

import (
	"slices"
	"strings"
	"sync/atomic"
)

// Measure names one optimization.
type Measure string

// The measures. docs/benchmarks.md says what each is worth.
const (
	// RawSocketIO: Conn reads and writes sockets by raw system calls that bypass Go's entersyscall.
	RawSocketIO Measure = "raw_socket_io"
	// ShortSlices: the daemon's threads ask for the shortest time slice (ShortenSlices).
	ShortSlices Measure = "short_slices"
	// RuntimePriority: the model runtime has a long time slice and a lower priority (LowerPriority).
	RuntimePriority Measure = "runtime_priority"
	// ExitPause: after the first sign that the runtime dies, the daemon sleeps for a moment (Sleep).
	ExitPause Measure = "exit_pause"
	// ExitPriority: a runtime that dies has the lowest priority (LowerAutogroup).
	ExitPriority Measure = "exit_priority"
)

// Measures returns all measures.
func Measures() []Measure {
	return []Measure{RawSocketIO, ShortSlices, RuntimePriority, ExitPause, ExitPriority}
}

// without names the measures, separated by commas, that a benchmark's build leaves out. The linker sets
// it; no release does.
var without string

// Without returns the link-time value, so that a benchmark builds the daemon like itself.
func Without() string { return without }

var off atomic.Bool

// SetEnabled turns all measures on, which is the default, or off. Call it before connections are opened and
// programs are started: what exists keeps what it has.
func SetEnabled(on bool) { off.Store(!on) }

// Enabled reports whether SetEnabled allows measures at all.
func Enabled() bool { return !off.Load() }

// Uses reports whether m is in use.
func Uses(m Measure) bool {
	return Enabled() && !slices.Contains(strings.Split(without, ","), string(m))
}
