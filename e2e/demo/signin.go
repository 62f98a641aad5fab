package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"time"
)

var loopbackURL = regexp.MustCompile(`http://(127\.0\.0\.1|\[::1\]):\d+/\S+`)

// signIn runs the command for a user without a browser, and acts as the browser: it opens the printed URL and follows the
// redirects, and trusts the hub's own authority.
func (d *demo) signIn(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, signInDeadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.binary("companion"), "login", "--no-browser")
	cmd.Env = append(os.Environ(), d.xdg()...)
	cmd.WaitDelay = time.Second
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("starting the sign-in: %w", err)
	}
	browsed := make(chan error, 1)
	go func() {
		err := d.browse(ctx, out)
		if err != nil {
			cancel()
		}
		_, _ = io.Copy(io.Discard, out)
		browsed <- err
	}()
	err := cmd.Wait()
	in.Close()
	if err = errors.Join(<-browsed, err); err != nil {
		return "", err
	}
	who, err := d.companion(ctx, "whoami")
	return string(firstLine(who)), err
}

// browse finds the URL in the command's output, opens it, and reads the output to its end.
func (d *demo) browse(ctx context.Context, printed io.Reader) error {
	opened := false
	lines := bufio.NewScanner(printed)
	for lines.Scan() {
		target := loopbackURL.FindString(lines.Text())
		if target == "" || opened {
			continue
		}
		opened = true
		if err := d.open(ctx, target); err != nil {
			return err
		}
	}
	if !opened {
		return errors.New("the sign-in printed no URL")
	}
	return nil
}

func (d *demo) open(ctx context.Context, target string) error {
	data, err := os.ReadFile(d.facts.caFile)
	if err != nil {
		return fmt.Errorf("reading the hub's authority: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(data)
	browser := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer browser.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return fmt.Errorf("opening the sign-in page: %w", err)
	}
	resp, err := browser.Do(req)
	if err != nil {
		return fmt.Errorf("opening the sign-in page: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("opening the sign-in page: the answer is %s", resp.Status)
	}
	return nil
}

// signOut removes the session from the keyring, as far as possible.
func (d *demo) signOut() {
	ctx, cancel := context.WithTimeout(context.Background(), signInDeadline)
	defer cancel()
	if _, err := d.companion(ctx, "logout"); err != nil {
		fmt.Fprintln(os.Stderr, "demo: signing out:", err)
	}
}
