// Package browser opens the system browser (O1: never an embedded view). What it is given is a
// program argument, readable by every process of the user, so callers pass only the one-time start
// page on loopback: no state, challenge or code is ever in it (rule 2).
package browser

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"time"

	"companion/messages"
)

// openTimeout is how long the system's opener may take; it hands the URL over and ends.
const openTimeout = 10 * time.Second

// Error says that no browser could be opened.
type Error struct {
	Reason messages.Reason
	cause  error
}

func (e *Error) Error() string { return "opening the browser: " + string(e.Reason) }
func (e *Error) Unwrap() error { return e.cause }

// Open opens start, an http URL of a loopback literal with nothing but a path, in the user's
// browser. Any failure is an *Error with ReasonBrowserFailed; the caller then shows the URL.
func Open(ctx context.Context, start string) error {
	failed := func(cause error) error { return &Error{messages.ReasonBrowserFailed, cause} }
	if err := checkStart(start); err != nil {
		return failed(err)
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	name, args := command(start)
	path, err := exec.LookPath(name)
	if err != nil {
		return failed(err)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	// An opener that leaves children behind with our pipes must not keep us waiting: it has none.
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, nil, nil
	cmd.Dir = os.TempDir()
	if err = launch(cmd); err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return failed(fmt.Errorf("running %s: %w", name, err))
	}
	return nil
}

func checkStart(start string) error {
	u, err := url.Parse(start)
	if err != nil {
		return fmt.Errorf("the start page is not a URL")
	}
	host, err := netip.ParseAddrPort(u.Host)
	if err != nil || u.Scheme != "http" || !host.Addr().IsLoopback() || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("the start page is not a plain path on loopback")
	}
	return nil
}
