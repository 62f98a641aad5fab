package process

import (
	"flag"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"pgregory.net/rapid"

	"companion/adapters/runtime/spawn/spawntest"
	"companion/messages"
)

// R1, R6, A9: for every order and timing of messages, each Spawn is answered by exactly one RuntimeExited, at most one
// child lives, and none lives after the last exit.
func TestEverySpawnEndsOnce(t *testing.T) {
	// Each check starts real processes; -rapid.checks asks for more.
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		_ = flag.Set("rapid.checks", "20")
		defer func() { _ = flag.Set("rapid.checks", checks.DefValue) }()
	}
	b := newBench(t)
	b.deps.Log = zap.NewNop()
	b.deps.KillGrace = 200 * time.Millisecond
	b.lifecycle = make(chan messages.ToLifecycle, 4096)
	b.deps.Lifecycle = b.lifecycle
	b.serve()
	models := []messages.VerifiedModel{
		spawntest.Model(t, map[string]any{"serve": true}),
		spawntest.Model(t, map[string]any{"serve": true, "ignoreTerm": true}),
		spawntest.Model(t, map[string]any{"exitAfter": 5 * time.Millisecond, "exitCode": 1}),
		spawntest.Model(t, map[string]any{"illegal": true}),
		{Name: "missing", Path: "/nowhere"},
	}
	binary := spawntest.Runtime(t)
	var launch messages.Launch
	rapid.Check(t, func(t *rapid.T) {
		first := launch + 1
		exits := map[messages.Launch]int{}
		var living int // process id of the launch that was started last and has not ended
		read := func() {
			for {
				select {
				case m := <-b.lifecycle:
					switch m := m.(type) {
					case messages.RuntimeStarted:
						living = m.PID
					case messages.RuntimeExited:
						exits[m.Launch]++
						if m.Exit.LastLines == nil || m.Exit.LastLines[0] != "another launch took its place" {
							living = 0
						}
					}
				default:
					return
				}
			}
		}
		for range rapid.IntRange(1, 6).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"spawn", "spawn", "kill", "confirm", "signal", "wait"}).Draw(t, "step") {
			case "spawn":
				launch++
				b.mailbox <- messages.Spawn{Launch: launch, Model: rapid.SampledFrom(models).Draw(t, "model"), Runtime: binary}
			case "kill":
				b.mailbox <- messages.Kill{Launch: launch}
			case "confirm":
				b.mailbox <- messages.ConfirmProcess{}
			case "signal":
				if read(); living > 1 {
					_ = syscall.Kill(living, rapid.SampledFrom([]syscall.Signal{syscall.SIGKILL, syscall.SIGSEGV, syscall.SIGSTOP}).Draw(t, "signal"))
				}
			case "wait":
				time.Sleep(time.Duration(rapid.IntRange(0, 60).Draw(t, "milliseconds")) * time.Millisecond)
			}
			read()
		}
		// End what runs, whichever launch it is.
		deadline := time.Now().Add(20 * time.Second)
		for done := false; !done; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("launches %d to %d: got the exits %v, want one of each", first, launch, exits)
			}
			for l := first; l <= launch; l++ {
				b.mailbox <- messages.Kill{Launch: l}
			}
			read()
			done = len(exits) == int(launch-first+1)
		}
		time.Sleep(20 * time.Millisecond)
		read()
		for l := first; l <= launch; l++ {
			if exits[l] != 1 {
				t.Fatalf("launch %d: got %d exits, want 1", l, exits[l])
			}
		}
		if view := b.deps.View.Get(); view.PID != 0 {
			t.Fatalf("got the view %+v, want no process", view)
		}
	})
}
