// Package browser opens the system browser (contract O1, O12: never an embedded view). Only the command line uses it: it
// runs in the user's own session, with the user's display, and ends without taking the browser with it. A daemon that runs
// as a service has neither.
//
// The URL becomes a program argument, which every user of this machine can read; the redirect listener refuses other users.
// Open accepts only the start page on loopback, which contains no state, challenge or code, or the verification page of a
// device authorization (RFC 8628), whose code the user reads aloud anyway.
package browser

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	"companion/messages"
)

// settle is how long Open waits for the opener's exit status. An opener that still runs after that is the browser itself:
// xdg-open does not return before a browser that it had to start.
const settle = 2 * time.Second

// Error says that no browser could be opened. Reason is always ReasonBrowserFailed.
type Error struct {
	Reason messages.Reason
	cause  error
}

func (e *Error) Error() string { return "opening the browser: " + string(e.Reason) }
func (e *Error) Unwrap() error { return e.cause }

func failed(cause error) error { return &Error{messages.ReasonBrowserFailed, cause} }

// Open opens page in the user's browser. It returns when the opener has ended, after two seconds, or when ctx ends, and
// leaves the opener running in a process group of its own: an interrupt in the terminal must not end the user's browser.
// Every failure is an *Error; the caller then shows the URL.
func Open(ctx context.Context, page string) error {
	if err := check(page); err != nil {
		return failed(err)
	}
	path, args, err := opener(os.Getenv, page)
	if err != nil {
		return failed(err)
	}
	cmd := exec.Command(path, args...)
	if dir, err := os.Stat(os.TempDir()); err == nil && dir.IsDir() { // do not keep the user's folder busy
		cmd.Dir = os.TempDir()
	}
	detach(cmd)
	if err := cmd.Start(); err != nil {
		return failed(fmt.Errorf("starting %s: %w", path, err))
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	late := time.NewTimer(settle)
	defer late.Stop()
	select {
	case err := <-ended:
		if err != nil {
			return failed(fmt.Errorf("running %s: %w", path, err))
		}
	case <-late.C:
	case <-ctx.Done():
	}
	return nil
}

// opener finds the program that opens page: the first of commands that exists.
func opener(getenv func(string) string, page string) (path string, args []string, err error) {
	for _, command := range commands(getenv) {
		path, err = exec.LookPath(command[0])
		if err == nil {
			return path, append(command[1:len(command):len(command)], page), nil
		}
	}
	return "", nil, fmt.Errorf("no program that opens a browser: %w", err)
}

// check accepts an http URL of a loopback literal that has nothing but a path, and an https URL without userinfo.
func check(page string) error {
	u, err := url.Parse(page)
	switch {
	case err != nil:
		return errors.New("the page is not a URL")
	case u.User != nil || u.Fragment != "" || u.Opaque != "" || strings.ContainsFunc(page, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return errors.New("the page is not a plain URL")
	case u.Scheme == "https" && u.Hostname() != "":
		return nil
	}
	host, err := netip.ParseAddrPort(u.Host)
	if err != nil || u.Scheme != "http" || !host.Addr().IsLoopback() || u.RawQuery != "" || u.ForceQuery {
		return errors.New("the page is neither https nor a plain path on loopback")
	}
	return nil
}
