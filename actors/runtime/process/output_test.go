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

// R8: a flood of output does not flood the log; how much is missing is said.
func TestOutputFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logged := observer.New(zapcore.DebugLevel)
		line := New(Deps{Output: zap.New(core)}).outputLogger()
		for range 10 * linesAtOnce {
			line("x")
		}
		if logged.Len() != linesAtOnce {
			t.Fatalf("%d lines were logged", logged.Len())
		}
		time.Sleep(time.Second)
		line("later")
		last := logged.All()[logged.Len()-1]
		if last.Message != "later" || last.ContextMap()["dropped"] != int64(9*linesAtOnce) {
			t.Errorf("logged %q %v", last.Message, last.ContextMap())
		}
		line("and on")
		if last := logged.All()[logged.Len()-1]; last.Message != "and on" || len(last.Context) > 0 {
			t.Errorf("logged %q %v", last.Message, last.ContextMap())
		}
	})
}
