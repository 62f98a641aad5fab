//go:build faults

package supervisor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/thejerf/suture/v4"
)

// faultFolder names the environment variable whose folder is looked at: a file in it that is named
// like an actor, with "-" for "/", makes that actor panic once, and is removed. For end-to-end
// tests only; the tag is never set for a build that is given to anybody.
const faultFolder = "COMPANION_FAULTS"

func instrument(actor suture.Service) suture.Service { return faulty{actor} }

type faulty struct{ suture.Service }

func (f faulty) String() string { return fmt.Sprint(f.Service) }

func (f faulty) Serve(ctx context.Context) error {
	trigger := filepath.Join(os.Getenv(faultFolder), strings.ReplaceAll(f.String(), "/", "-"))
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
				if os.Remove(trigger) == nil {
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
