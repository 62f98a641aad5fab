package supervisor

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/messages"
)

// notifier sends readiness, status and watchdog notifications to systemd (sd_notify), if the service manager
// asks for them. It sends watchdog notifications only while the lifecycle actor answers, so that the service
// manager restarts a daemon that hangs.
type notifier struct {
	snapshot  *actorkit.Watch[messages.Snapshot]
	lifecycle chan<- messages.ToLifecycle
	log       *zap.Logger
}

func (n *notifier) String() string { return "systemd" }

// Serve returns suture.ErrDoNotRestart at once if the service manager asks for no notifications.
func (n *notifier) Serve(ctx context.Context) error {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		n.log.Warn("watchdog variable not understood", zap.Error(err))
	}
	var beat <-chan time.Time
	if interval > 0 {
		// Half the interval, as sd_watchdog_enabled(3) advises.
		ticker := time.NewTicker(interval / 2)
		defer ticker.Stop()
		beat = ticker.C
	}
	n.tell(daemon.SdNotifyReady)
	for {
		snapshot, changed := n.snapshot.Next()
		n.tell("STATUS=" + summary(snapshot))
		select {
		case <-ctx.Done():
			n.tell(daemon.SdNotifyStopping)
			return ctx.Err()
		case <-changed:
		case <-beat:
			if n.lives(ctx, interval/2) {
				n.tell(daemon.SdNotifyWatchdog)
			}
		}
	}
}

// lives reports whether the lifecycle actor answers a Ping.
func (n *notifier) lives(ctx context.Context, patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := actorkit.Ask(ctx, n.lifecycle, func(reply chan<- struct{}) messages.ToLifecycle {
		return messages.Ping{Reply: reply}
	})
	return err == nil
}

func (n *notifier) tell(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.log.Warn("service manager not told", zap.Error(err))
	}
}

func summary(s messages.Snapshot) string {
	if s.Available {
		return fmt.Sprintf("available: %s at %s", s.Model.Name, s.BaseURL)
	}
	return fmt.Sprintf("not available: %s (%s)", s.State, s.Reason)
}
