//go:build linux

package process

import (
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// R8: a flood of output does not flood the log, and the number of dropped lines is logged.
func TestOutputFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logged := observer.New(zapcore.DebugLevel)
		line := New(Deps{Output: zap.New(core)}).outputLogger()
		for range 10 * linesAtOnce {
			line("x")
		}
		if logged.Len() != linesAtOnce {
			t.Fatalf("got %d logged lines, want %d", logged.Len(), linesAtOnce)
		}
		time.Sleep(time.Second)
		line("later")
		last := logged.All()[logged.Len()-1]
		if last.Message != "later" || last.ContextMap()["dropped"] != int64(9*linesAtOnce) {
			t.Errorf("got %q %v, want later and the count of dropped lines", last.Message, last.ContextMap())
		}
		line("and on")
		if last := logged.All()[logged.Len()-1]; last.Message != "and on" || len(last.Context) > 0 {
			t.Errorf("got %q %v, want \"and on\" without a count", last.Message, last.ContextMap())
		}
	})
}
