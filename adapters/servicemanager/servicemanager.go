// Package servicemanager runs the commands of the platform's service manager: systemctl, launchctl, schtasks (X10).
// It is the one room of the command line that starts them; only cmd/companion uses it, never the daemon.
package servicemanager

import (
	"bytes"
	"context"
	"os/exec"
	"time"
)

// Output runs argv for at most within and returns what it printed on both streams. The error comes from os/exec: it
// tells a missing program from one that failed.
func Output(ctx context.Context, within time.Duration, argv []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}
