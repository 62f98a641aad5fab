package harness

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
	"strings"
	"time"

	"companion/cmd/devhub/fault"
)

const signInWithin = time.Minute

var loopbackURL = regexp.MustCompile(`http://(127\.0\.0\.1|\[::1\]):\d+/\S+`)

// deviceURL is the page with the code filled in.
var deviceURL = regexp.MustCompile(`https://\S+user_code=\S+`)

// Visit is a sign-in as seen by the browser: every URL in order, and the last page.
type Visit struct {
	URLs []string
	Page string
}

// SignIn signs User in, and fails the test if that fails.
func (c *Companion) SignIn() Visit {
	c.t.Helper()
	r, visit := c.Login()
	if r.Code != 0 {
		c.t.Fatalf("signing in: got code %d, want 0:\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	return visit
}

// Login runs login --no-browser and acts as the browser: it opens the printed URL and follows the redirects, and trusts the
// hub's own authority.
func (c *Companion) Login() (Result, Visit) {
	c.t.Helper()
	return c.LoginWith("--no-browser")
}

// LoginWith is Login with other flags.
func (c *Companion) LoginWith(flags ...string) (Result, Visit) {
	c.t.Helper()
	r, visit, err := c.login(loopbackURL, append([]string{"login"}, flags...)...)
	if err != nil {
		c.t.Errorf("in the browser: %v", err)
	}
	return r, visit
}

// TryLogin is Login where the browser may fail too.
func (c *Companion) TryLogin() Result {
	c.t.Helper()
	r, _, _ := c.login(loopbackURL, "login", "--no-browser")
	return r
}

// DeviceLogin runs login --device and confirms the code in a browser.
func (c *Companion) DeviceLogin() Result {
	c.t.Helper()
	r, _, err := c.login(deviceURL, "login", "--device")
	if err != nil {
		c.t.Errorf("in the browser: %v", err)
	}
	return r
}

// login runs a command and opens the first page that it prints. The error is the browser's.
func (c *Companion) login(pages *regexp.Regexp, args ...string) (Result, Visit, error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), signInWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, Binary(c.t, "companion"), args...)
	out, in := io.Pipe()
	var printed strings.Builder
	cmd.Env, cmd.Stdout, cmd.Stderr = c.env(), in, in
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		c.t.Fatalf("starting the sign-in: %v", err)
	}
	browsed := make(chan error, 1)
	var visit Visit
	go func() {
		var err error
		lines := bufio.NewScanner(io.TeeReader(out, &printed))
		for lines.Scan() {
			if page := pages.FindString(lines.Text()); page != "" && visit.URLs == nil {
				if c.Scanned {
					err = scan(ctx, page)
				}
				if err == nil && c.Before != nil {
					err = c.Before(page)
				}
				if err == nil {
					visit, err = c.Hub.Browse(ctx, page)
				}
			}
		}
		browsed <- err
	}()
	err := cmd.Wait()
	in.Close()
	browseErr := <-browsed
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		c.t.Fatalf("signing in: got %v, want an exit status\n%s", err, printed.String())
	}
	return Result{args, cmd.ProcessState.ExitCode(), printed.String(), ""}, visit, browseErr
}

// scan opens page as link scanners, previews and prefetching do. They follow no redirect to the hub.
func scan(ctx context.Context, page string) error {
	scanner := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer scanner.CloseIdleConnections()
	for _, header := range []http.Header{
		{"User-Agent": {"Slackbot-LinkExpanding 1.0"}}, {"Sec-Purpose": {"prefetch;prerender"}}, {"Purpose": {"prefetch"}},
	} {
		for _, method := range []string{http.MethodHead, http.MethodGet} {
			request, err := http.NewRequestWithContext(ctx, method, page, nil)
			if err != nil {
				return err
			}
			request.Header = header
			answer, err := scanner.Do(request)
			if err != nil {
				return fmt.Errorf("scanning the sign-in page: %w", err)
			}
			answer.Body.Close()
		}
	}
	return nil
}

// Browse opens page as a browser does, and follows redirects.
func (h *Hub) Browse(ctx context.Context, page string) (Visit, error) {
	browser, err := h.Client()
	if err != nil {
		return Visit{}, err
	}
	defer browser.CloseIdleConnections()
	visit := Visit{URLs: []string{page}}
	browser.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		visit.URLs = append(visit.URLs, r.URL.String())
		return nil
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return visit, err
	}
	answer, err := browser.Do(request)
	if err != nil {
		return visit, fmt.Errorf("opening the sign-in page: %w", err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	visit.Page = string(body)
	return visit, err
}

// Client returns an HTTP client that trusts the hub's authority.
func (h *Hub) Client() (*http.Client, error) {
	authority, err := os.ReadFile(h.CAFile)
	if err != nil {
		return nil, fmt.Errorf("reading the hub's authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		return nil, errors.New("the hub's authority holds no certificate")
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}, nil
}

// RefuseAccessToken makes the hub refuse the daemon's access token once, which makes the daemon refresh.
func RefuseAccessToken(c *Companion, hub *Hub) {
	hub.Fault(string(fault.EarlyRevoked), true)
	c.Run("whoami")
	hub.Fault(string(fault.EarlyRevoked), false)
}
