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
	"net/url"
	"time"

	"companion/adapters/lowlatency"
	"companion/messages"
)

// maxAnswer bounds one answer, or one line of a stream, in bytes.
const maxAnswer = 4 << 20

// Client speaks to the daemon. Every call makes its own connection, so that nothing needs closing;
// a call waits until ctx ends, and the daemon has its own deadlines.
type Client struct {
	http *http.Client
}

// Dial returns a client of the socket at path. Whether somebody listens there shows in each call,
// as ErrNotRunning if not.
func Dial(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "unix", path)
		if err != nil {
			if nobodyListens(err) {
				return nil, ErrNotRunning
			}
			return nil, fmt.Errorf("reaching the control socket: %w", err)
		}
		if err := checkPeer(conn, ownUID()); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("checking the control socket: %w", err)
		}
		return lowlatency.Conn(conn), nil
	}
	return &Client{&http.Client{
		Transport:     &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Status returns the status now.
func (c *Client) Status(ctx context.Context) (messages.Status, error) {
	var status messages.Status
	return status, c.call(ctx, http.MethodGet, "/v1/status", nil, &status)
}

// Watch calls each with the status now and at every change of availability or lifecycle, until it
// returns an error, which Watch returns, or ctx ends. ErrNotRunning says that the daemon went away.
func (c *Client) Watch(ctx context.Context, each func(messages.Status) error) error {
	return c.watch(ctx, "/v1/status/watch", each)
}

// WatchEvery is Watch, and calls each also that often (100 ms to an hour) without a change, for
// figures that move.
func (c *Client) WatchEvery(ctx context.Context, every time.Duration, each func(messages.Status) error) error {
	return c.watch(ctx, "/v1/status/watch?every="+url.QueryEscape(every.String()), each)
}

func (c *Client) watch(ctx context.Context, path string, each func(messages.Status) error) error {
	return c.stream(ctx, http.MethodGet, path, nil, func(next decodeFunc) error {
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

// Login signs in. It calls onPage once with the page to open, and then waits for the result. The end of ctx cancels the
// attempt.
func (c *Client) Login(ctx context.Context, device bool, onPage func(messages.LoginPage)) (messages.LoginResult, error) {
	var result messages.LoginResult
	err := c.stream(ctx, http.MethodPost, "/v1/login", loginBody{device}, func(next decodeFunc) error {
		for {
			var line loginLine
			switch err := next(&line); {
			case err != nil:
				return err
			case line.Error != nil:
				return line.Error
			case line.Result != nil:
				result = messages.LoginResult{Reason: line.Result.Reason, Detail: line.Result.Detail, User: line.Result.User}
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
	err := c.call(ctx, http.MethodPost, "/v1/logout", nil, &body)
	return messages.LogoutResult(body), err
}

// WhoAmI asks the hub who is signed in.
func (c *Client) WhoAmI(ctx context.Context) (messages.WhoAmIResult, error) {
	var body whoAmIBody
	err := c.call(ctx, http.MethodGet, "/v1/whoami", nil, &body)
	return messages.WhoAmIResult(body), err
}

// Models asks what the manifest offers.
func (c *Client) Models(ctx context.Context) (messages.ModelList, error) {
	var body modelsBody
	err := c.call(ctx, http.MethodGet, "/v1/models", nil, &body)
	return messages.ModelList(body), err
}

// Pull fetches name, or the wanted model and runtime when it is empty, and waits for the end. The
// transfers of Status show the progress.
func (c *Client) Pull(ctx context.Context, name string) (messages.Reason, error) {
	return c.command(ctx, "/v1/pull", pullBody{name})
}

// Start asks to run the runtime, without waiting until it is ready.
func (c *Client) Start(ctx context.Context) (messages.Reason, error) {
	return c.command(ctx, "/v1/start", nil)
}

// Stop drains and stops the runtime, and waits for its end.
func (c *Client) Stop(ctx context.Context) (messages.Reason, error) {
	return c.command(ctx, "/v1/stop", nil)
}

// Restart drains and stops the runtime, and waits until its start begins.
func (c *Client) Restart(ctx context.Context) (messages.Reason, error) {
	return c.command(ctx, "/v1/restart", nil)
}

func (c *Client) command(ctx context.Context, path string, body any) (messages.Reason, error) {
	var answer reasonBody
	err := c.call(ctx, http.MethodPost, path, body, &answer)
	return answer.Reason, err
}

func (c *Client) call(ctx context.Context, method, path string, body, into any) error {
	return c.stream(ctx, method, path, body, func(next decodeFunc) error { return next(into) })
}

// decodeFunc reads the next line of an answer.
type decodeFunc func(into any) error

func (c *Client) stream(ctx context.Context, method, path string, body any, read func(decodeFunc) error) error {
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
		if err := json.Unmarshal(lines.Bytes(), into); err != nil {
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

// lost tells a daemon that is gone, also by a plain end (nil), from a caller who gave up and from
// everything else.
func lost(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, ErrNotRunning):
		return ErrNotRunning
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), brokenOff(err):
		return fmt.Errorf("the connection ended: %w", ErrNotRunning)
	default:
		return fmt.Errorf("asking the companion: %w", err)
	}
}
