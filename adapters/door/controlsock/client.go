package controlsock

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync/atomic"
	"time"

	"companion/adapters/lowlatency"
	"companion/messages"
)

// maxAnswer bounds one answer, or one line of a stream, in bytes.
const maxAnswer = 4 << 20

// How long the client waits. The daemon has deadlines of its own (actors/door/control), a little shorter.
const (
	// statusWithin is for an answer that the daemon gives from memory.
	statusWithin = 5 * time.Second
	askWithin    = time.Minute     // one round trip to the hub or the keychain
	stopWithin   = 3 * time.Minute // drain, polite signal, hard signal
	pullWithin   = 25 * time.Hour  // the largest model over a slow line
	forever      = 0               // a watch, and a sign-in, whose end the daemon sets: a hub's device code can live an hour
	// probeEvery is how often a call that may take long checks, on a second connection, that the daemon still answers.
	probeEvery = 10 * time.Second
)

// Client sends commands to the daemon. Each call makes its own connection, so nothing needs closing. Each call has a
// deadline, and one that may take long (a watch, a download) also checks that the daemon answers. A daemon that accepts
// connections and does not answer gives an *UnresponsiveError.
type Client struct {
	http       *http.Client
	peer       atomic.Int64  // process id of the daemon, from the kernel; 0: not known
	answer     time.Duration // statusWithin; tests shorten it
	probeEvery time.Duration
}

// Dial returns a client of the socket at path. A call fails with ErrNotRunning when no daemon listens there.
func Dial(path string) *Client {
	c := &Client{answer: statusWithin, probeEvery: probeEvery}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "unix", path)
		if err != nil {
			switch {
			case nobodyListens(err):
				return nil, ErrNotRunning
			case queueFull(err):
				return nil, c.unresponsive()
			}
			return nil, fmt.Errorf("reaching the control socket: %w", err)
		}
		if err := checkPeer(conn, ownUID()); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("checking the control socket: %w", err)
		}
		if pid, err := peerPID(conn); err == nil {
			c.peer.Store(int64(pid))
		}
		return lowlatency.Conn(conn), nil
	}
	c.http = &http.Client{
		Transport:     &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// unresponsive returns the error for a daemon that does not answer in time.
func (c *Client) unresponsive() error { return &UnresponsiveError{PID: int(c.peer.Load())} }

// Status returns the current status.
func (c *Client) Status(ctx context.Context) (messages.Status, error) {
	var status messages.Status
	return status, c.call(ctx, c.answer, http.MethodGet, "/v1/status", nil, &status)
}

// Watch calls each with the current status and at every change of availability or lifecycle. It returns the error of
// each, the error of ctx, or ErrNotRunning when the daemon ends.
func (c *Client) Watch(ctx context.Context, each func(messages.Status) error) error {
	return c.watch(ctx, "/v1/status/watch", each)
}

// WatchEvery is Watch, and also calls each at that interval (100 ms to an hour) without a change, for values that
// change steadily.
func (c *Client) WatchEvery(ctx context.Context, every time.Duration, each func(messages.Status) error) error {
	return c.watch(ctx, "/v1/status/watch?every="+url.QueryEscape(every.String()), each)
}

func (c *Client) watch(ctx context.Context, path string, each func(messages.Status) error) error {
	return c.stream(ctx, forever, http.MethodGet, path, nil, func(next decodeFunc) error {
		for {
			var status messages.Status
			if err := next(&status); err != nil {
				return err
			}
			if err := each(status); err != nil {
				return err
			}
		}
	})
}

// Login signs in. It calls onPage once with the page to open, and then waits for the result. The end of ctx cancels
// the attempt.
func (c *Client) Login(ctx context.Context, device bool, onPage func(messages.LoginPage)) (messages.LoginResult, error) {
	var result messages.LoginResult
	err := c.stream(ctx, forever, http.MethodPost, "/v1/login", loginBody{device}, func(next decodeFunc) error {
		for {
			var line loginLine
			switch err := next(&line); {
			case err != nil:
				return err
			case line.Error != nil:
				return line.Error
			case line.Result != nil:
				result = messages.LoginResult{Reason: line.Result.Reason, Detail: line.Result.Detail, User: line.Result.User, Hub: line.Result.Hub}
				return nil
			case line.Page != nil:
				onPage(*line.Page)
			}
		}
	})
	return result, err
}

// Logout signs out.
func (c *Client) Logout(ctx context.Context) (messages.LogoutResult, error) {
	var body logoutBody
	err := c.call(ctx, askWithin, http.MethodPost, "/v1/logout", nil, &body)
	return messages.LogoutResult(body), err
}

// WhoAmI asks the hub who is signed in.
func (c *Client) WhoAmI(ctx context.Context) (messages.WhoAmIResult, error) {
	var body whoAmIBody
	err := c.call(ctx, askWithin, http.MethodGet, "/v1/whoami", nil, &body)
	return messages.WhoAmIResult(body), err
}

// Models returns the models of the manifest.
func (c *Client) Models(ctx context.Context) (messages.ModelList, error) {
	var body modelsBody
	err := c.call(ctx, askWithin, http.MethodGet, "/v1/models", nil, &body)
	return messages.ModelList(body), err
}

// Prune removes what nothing uses, or with dryRun lists it.
func (c *Client) Prune(ctx context.Context, dryRun bool) (messages.PruneResult, error) {
	var body prunedBody
	err := c.call(ctx, askWithin, http.MethodPost, "/v1/prune", pruneBody{dryRun}, &body)
	return messages.PruneResult(body), err
}

// Pull fetches name, or the wanted model and runtime when it is empty, and waits for the end. The transfers in Status
// show the progress.
func (c *Client) Pull(ctx context.Context, name string) (messages.Reason, error) {
	return c.command(ctx, pullWithin, "/v1/pull", pullBody{name})
}

// Use fetches, verifies and serves the model name, or the configured one if it is empty, and waits until it is ready.
func (c *Client) Use(ctx context.Context, name string) (messages.Reason, error) {
	return c.command(ctx, pullWithin, "/v1/use", pullBody{name})
}

// Reload says that the user's own catalogue has changed.
func (c *Client) Reload(ctx context.Context) (messages.Reason, error) {
	return c.command(ctx, askWithin, "/v1/reload", nil)
}

// Start requests a start of the runtime, without waiting until it is ready.
func (c *Client) Start(ctx context.Context) (messages.Reason, error) {
	return c.command(ctx, askWithin, "/v1/start", nil)
}

// Stop drains and stops the runtime, and waits until it has ended.
func (c *Client) Stop(ctx context.Context) (messages.Reason, error) {
	return c.command(ctx, stopWithin, "/v1/stop", nil)
}

// Restart drains and stops the runtime, and waits until its start begins.
func (c *Client) Restart(ctx context.Context) (messages.Reason, error) {
	return c.command(ctx, stopWithin, "/v1/restart", nil)
}

// ReloadTokens makes the daemon read the application tokens again, and waits until the new list holds.
func (c *Client) ReloadTokens(ctx context.Context) (messages.Reason, error) {
	return c.command(ctx, askWithin, "/v1/tokens/reload", nil)
}

// Confirms reports whether the daemon's endpoint has accepted the connection from client to server.
func (c *Client) Confirms(ctx context.Context, client, server netip.AddrPort) (bool, error) {
	var body confirmedBody
	err := c.call(ctx, askWithin, http.MethodPost, "/v1/confirm", confirmBody{client, server}, &body)
	return body.Confirmed, err
}

func (c *Client) command(ctx context.Context, within time.Duration, path string, body any) (messages.Reason, error) {
	var answer reasonBody
	err := c.call(ctx, within, http.MethodPost, path, body, &answer)
	return answer.Reason, err
}

func (c *Client) call(ctx context.Context, within time.Duration, method, path string, body, into any) error {
	return c.stream(ctx, within, method, path, body, func(next decodeFunc) error { return next(into) })
}

// decodeFunc reads the next line of an answer.
type decodeFunc func(into any) error

// bounded returns a context that ends when the call takes longer than within or, for a call that may take longer than
// a status request, as soon as the daemon no longer answers status requests. stop must be called; it waits for the
// probe.
func (c *Client) bounded(ctx context.Context, within time.Duration) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	var late *time.Timer
	if within != forever {
		late = time.AfterFunc(within, func() { cancel(c.unresponsive()) })
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if within == c.answer {
			return
		}
		ticker := time.NewTicker(c.probeEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			var gone *UnresponsiveError
			if _, err := c.Status(ctx); errors.As(err, &gone) {
				cancel(gone)
			}
		}
	}()
	return ctx, func() {
		if late != nil {
			late.Stop()
		}
		cancel(nil)
		<-done
	}
}

func (c *Client) stream(ctx context.Context, within time.Duration, method, path string, body any, read func(decodeFunc) error) error {
	ctx, stop := c.bounded(ctx, within)
	defer stop()
	var encoded io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encoding the command: %w", err)
		}
		encoded = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://companion"+path, encoded)
	if err != nil {
		return fmt.Errorf("making the command: %w", err)
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return lost(ctx, err)
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, maxAnswer)
	next := func(into any) error {
		if !lines.Scan() {
			return lost(ctx, lines.Err())
		}
		err := json.Unmarshal(lines.Bytes(), into)
		if err != nil && (ctx.Err() != nil || lines.Err() != nil) {
			return lost(ctx, lines.Err()) // a line that was cut off
		}
		if err != nil {
			return fmt.Errorf("understanding the companion's answer: %w", err)
		}
		return nil
	}
	if answer.StatusCode == http.StatusOK {
		return read(next)
	}
	var refused errorBody
	if err := next(&refused); err != nil || refused.Error == nil {
		return fmt.Errorf("the companion answered with status %d", answer.StatusCode)
	}
	return refused.Error
}

// lost names the cause of a broken call: the caller gave up, the daemon does not answer, the daemon has ended (err is
// nil, or an error of a closed connection), or another error.
func lost(ctx context.Context, err error) error {
	var unresponsive *UnresponsiveError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &unresponsive):
		return unresponsive
	case errors.Is(err, ErrNotRunning):
		return ErrNotRunning
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), brokenOff(err):
		return fmt.Errorf("the connection ended: %w", ErrNotRunning)
	default:
		return fmt.Errorf("asking the companion: %w", err)
	}
}
