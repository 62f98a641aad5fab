//go:build faults

package supervisor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/thejerf/suture/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// faultFolder is the environment variable with the folder of fault requests. A file there that is named like an
// actor, with "-" for "/", makes that actor return from Serve and panic once, and is removed. With the suffix
// midWork the actor panics in the middle of its work instead: at the next line that its loop logs. For
// end-to-end tests only; releases are never built with this tag.
const (
	faultFolder = "COMPANION_FAULTS"
	midWork     = ".mid-work"
)

func trigger(actor string) string {
	return filepath.Join(os.Getenv(faultFolder), strings.ReplaceAll(actor, "/", "-"))
}

func instrumentLog(logger *zap.Logger) *zap.Logger {
	return logger.WithOptions(zap.Hooks(func(line zapcore.Entry) error {
		file := trigger(line.LoggerName) + midWork
		if _, err := os.Stat(file); err != nil || !inLoop() || os.Remove(file) != nil {
			return nil
		}
		panic("fault on demand")
	}))
}

// inLoop reports whether the calling goroutine runs an actor's Serve.
func inLoop() bool {
	stack := make([]byte, 1<<16)
	return strings.Contains(string(stack[:runtime.Stack(stack, false)]), "supervisor.faulty.Serve(")
}

func instrument(actor suture.Service) suture.Service { return faulty{actor} }

type faulty struct{ suture.Service }

func (f faulty) String() string { return fmt.Sprint(f.Service) }

func (f faulty) Serve(ctx context.Context) error {
	file := trigger(f.String())
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	fired := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if os.Remove(file) == nil {
					close(fired)
					stop()
					return
				}
			}
		}
	}()
	err := f.Service.Serve(ctx)
	stop()
	<-watched
	select {
	case <-fired:
		panic("fault on demand")
	default:
		return err
	}
}
