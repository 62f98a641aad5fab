// Package hub holds the tests of the authority adapters against the development hub as a process.
package hub

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"companion/adapters/authority/oauth"
	"companion/adapters/authority/transport"
	"companion/adapters/authority/tuf"
	"companion/messages"
)

var devhub string

// TestMain builds devhub once.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "hubtest-")
	if err != nil {
		panic(err)
	}
	devhub = filepath.Join(dir, "devhub")
	if out, err := exec.Command("go", "build", "-o", devhub, "companion/cmd/devhub").CombinedOutput(); err != nil {
		panic(string(out))
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// addresses is the first line of output of devhub serve (cli.md).
type addresses struct{ Hub, Artifacts, CAFile, RootFile string }

func serve(t *testing.T, dir string, args ...string) addresses {
	t.Helper()
	cmd := exec.Command(devhub, append([]string{"serve", "--dir", dir}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("devhub: %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var first addresses
	if err := json.Unmarshal(line, &first); err != nil {
		t.Fatal(err)
	}
	return first
}

func devhubRun(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(devhub, args...).CombinedOutput(); err != nil {
		t.Fatalf("devhub %s: %v\n%s", args[0], err, out)
	}
}

// fault turns one fault on until the test ends.
func fault(t *testing.T, dir, name string) {
	t.Helper()
	devhubRun(t, "fault", "--dir", dir, name, "on")
	t.Cleanup(func() { devhubRun(t, "fault", "--dir", dir, name, "off") })
}

func httpClient(t *testing.T, a addresses) *http.Client {
	t.Helper()
	c, err := transport.New(a.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func signInClient(t *testing.T, a addresses, clientID string) *oauth.Client {
	t.Helper()
	c, err := oauth.New(oauth.Config{
		Issuer: a.Hub + "/api/v1/auth/native", SessionURL: a.Hub + "/api/v1/auth/session",
		Scope: "vault:read vault:write", FirstParty: true, ClientID: clientID, Timeout: 3 * time.Second, HTTP: httpClient(t, a),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// browse acts as the browser: it follows redirects, from the start page to the callback.
func browse(ctx context.Context, t *testing.T, a addresses, target string) {
	t.Helper()
	browser := *httpClient(t, a)
	browser.CheckRedirect = nil
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		t.Error(err)
		return
	}
	resp, err := browser.Do(req)
	if err != nil {
		return // the attempt may end under the browser; its own error says why
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}

func signIn(t *testing.T, a addresses, c *oauth.Client) (oauth.Grant, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	attempt, err := c.Begin(ctx)
	if err != nil {
		return oauth.Grant{}, err
	}
	browsed := make(chan struct{})
	go func() {
		defer close(browsed)
		browse(ctx, t, a, attempt.Page().URL)
	}()
	grant, err := attempt.Wait(ctx)
	attempt.Close(err == nil)
	<-browsed
	return grant, err
}

// O1–O9 over the real protocol: sign in, with and without registration; who am I; refresh; reuse kills
// the family; revoke.
func TestSignIn(t *testing.T) {
	dir := t.TempDir()
	a := serve(t, dir, "--auto-approve", "ada")
	for name, clientID := range map[string]string{"registered": "", "configured": "companion-development"} {
		t.Run(name, func(t *testing.T) {
			c := signInClient(t, a, clientID)
			grant, err := signIn(t, a, c)
			if err != nil {
				t.Fatal(err)
			}
			user, err := c.WhoAmI(t.Context(), grant.Access)
			want := messages.User{Subject: "devhub|ada", Provider: "devhub", ID: "ada", Name: "Ada Lovelace", Role: "member"}
			if err != nil || user != want {
				t.Errorf("got user %+v, %v, want %+v", user, err, want)
			}
			next, err := c.Refresh(t.Context(), grant.ClientID, grant.Refresh, nil)
			if err != nil {
				t.Fatal(err)
			}
			var e *oauth.Error
			if _, err := c.Refresh(t.Context(), grant.ClientID, grant.Refresh, nil); !errors.As(err, &e) || !e.SessionOver() {
				t.Errorf("reuse: got %v, want the session over", err)
			}
			if _, err := c.Refresh(t.Context(), grant.ClientID, next.Refresh, nil); !errors.As(err, &e) || !e.SessionOver() {
				t.Errorf("after reuse: got %v, want the session over", err)
			}
			grant, err = signIn(t, a, c)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Revoke(t.Context(), grant.ClientID, grant.Refresh); err != nil {
				t.Error(err)
			}
			if _, err := c.Refresh(t.Context(), grant.ClientID, grant.Refresh, nil); !errors.As(err, &e) || !e.SessionOver() {
				t.Errorf("after revocation: got %v, want the session over", err)
			}
		})
	}
}

// T13: what a hostile authorization server does ends the attempt with its own reason.
func TestSignInFaults(t *testing.T) {
	dir := t.TempDir()
	a := serve(t, dir, "--auto-approve", "ada")
	for name, want := range map[string]messages.Reason{
		"wrong-iss":         messages.ReasonIssuerMismatch,
		"no-iss":            messages.ReasonIssuerMissing,
		"wrong-state":       messages.ReasonStateMismatch,
		"reused-code":       messages.ReasonTokenExchangeFailed,
		"denied":            messages.ReasonAuthorizationServerError,
		"token-error":       messages.ReasonTokenExchangeFailed,
		"lost-token-answer": messages.ReasonTokenExchangeFailed,
		"wrong-issuer":      messages.ReasonIssuerMismatch,
		"foreign-endpoint":  messages.ReasonMetadataInvalid,
		"plain-pkce-only":   messages.ReasonUnsupportedPKCEMethod,
		"no-registration":   messages.ReasonRegistrationFailed,
		"server-error":      messages.ReasonHubUnreachable,

		"foreign-token-endpoint":     messages.ReasonMetadataInvalid,
		"redirecting-token-endpoint": messages.ReasonTokenExchangeFailed,
		"huge-tokens":                messages.ReasonInvalidTokenResponse,
		"bad-expiry":                 messages.ReasonInvalidTokenResponse,
		"wrong-token-type":           messages.ReasonInvalidTokenResponse,
		"huge-token-answer":          messages.ReasonTokenExchangeFailed,
		"cut-token-body":             messages.ReasonTokenExchangeFailed,
		"no-rotation":                messages.ReasonOK,
		"no-scope":                   messages.ReasonOK,
		"early-revocation":           messages.ReasonOK,
		"previews":                   messages.ReasonOK,
	} {
		t.Run(name, func(t *testing.T) {
			fault(t, dir, name)
			_, err := signIn(t, a, signInClient(t, a, ""))
			got := messages.ReasonOK
			if err != nil {
				got = oauth.AsError(err).Reason
			}
			if got != want {
				t.Errorf("the reason is %s (%v), want %s", got, err, want)
			}
		})
	}
	if _, err := signIn(t, a, signInClient(t, a, "")); err != nil {
		t.Errorf("without a fault: %v", err)
	}
}

// O11: device authorization over the real protocol, with a registered and a configured client.
func TestDeviceSignIn(t *testing.T) {
	dir := t.TempDir()
	a := serve(t, dir, "--auto-approve", "ada")
	for name, clientID := range map[string]string{"registered": "", "configured": "companion-development"} {
		t.Run(name, func(t *testing.T) {
			c := signInClient(t, a, clientID)
			attempt, err := c.BeginDevice(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			browse(t.Context(), t, a, attempt.Page().Complete)
			grant, err := attempt.Wait(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if user, err := c.WhoAmI(t.Context(), grant.Access); err != nil || user.ID != "ada" {
				t.Errorf("got user %+v, %v, want ada", user, err)
			}
			if _, err := c.Refresh(t.Context(), grant.ClientID, grant.Refresh, nil); err != nil {
				t.Errorf("refresh: %v", err)
			}
		})
	}
	fault(t, dir, "no-device-authorization")
	if _, err := signInClient(t, a, "").BeginDevice(t.Context()); err == nil || oauth.AsError(err).Reason != messages.ReasonDeviceUnsupported {
		t.Errorf("a hub without device authorization: got %v, want device_unsupported", err)
	}
}

// O8: in a storm of 503 with long pages, and while the hub restarts, refreshes fail and end no session.
func TestStorms(t *testing.T) {
	dir := t.TempDir()
	a := serve(t, dir, "--auto-approve", "ada")
	c := signInClient(t, a, "")
	for _, name := range []string{"token-storm", "restarts"} {
		t.Run(name, func(t *testing.T) {
			grant, err := signIn(t, a, c)
			if err != nil {
				t.Fatal(err)
			}
			devhubRun(t, "fault", "--dir", dir, name, "on")
			failed := 0
			for range 30 {
				next, err := c.Refresh(t.Context(), grant.ClientID, grant.Refresh, nil)
				if err == nil {
					grant.Refresh = next.Refresh
					continue
				}
				failed++
				e := oauth.AsError(err)
				// A request that was cut while it was on its way may have been answered: then it is unsafe, and never over.
				if e.SessionOver() || name == "token-storm" && e.Retry != oauth.RetryLater {
					t.Fatalf("a failed refresh: got retry %d, session over %v: %v, want a later retry", e.Retry, e.SessionOver(), err)
				}
			}
			devhubRun(t, "fault", "--dir", dir, name, "off")
			if failed == 0 {
				t.Error("no refresh failed: this test proves nothing")
			}
			if _, err := c.Refresh(t.Context(), grant.ClientID, grant.Refresh, nil); err != nil {
				t.Errorf("after the storm: %v", err)
			}
		})
	}
}

func manifestClient(t *testing.T, a addresses, trust string) *tuf.Client {
	t.Helper()
	root, err := os.ReadFile(a.RootFile)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tuf.New(tuf.Config{
		URL: a.Hub + "/api/v1/manifest/", Root: root, Dir: trust, Platform: runtime.GOOS + "/" + runtime.GOARCH,
		PrivateHosts: []string{"127.0.0.1"}, HTTP: httpClient(t, a),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// M1–M4: what devhub signs is what the companion verifies and offers; each fault has its reason, and
// leaves no artifact to download.
func TestManifest(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(t.TempDir(), "m.gguf")
	if err := os.WriteFile(file, append([]byte("GGUF"), bytes.Repeat([]byte("x"), 5000)...), 0o600); err != nil {
		t.Fatal(err)
	}
	devhubRun(t, "publish", "--dir", dir, "--kind", "model", "--name", "small", "--default", file)
	a := serve(t, dir)
	trust := filepath.Join(t.TempDir(), "trust")
	if err := os.Mkdir(trust, 0o700); err != nil {
		t.Fatal(err)
	}
	c := manifestClient(t, a, trust)
	catalogue, err := c.Refresh(t.Context(), messages.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	if model, reason := catalogue.Model(""); reason != messages.ReasonOK || model.Name != "small" || model.Size != 5004 {
		t.Errorf("got default model %+v, %s, want small with 5004 bytes", model.Name, reason)
	}
	for name, want := range map[string]messages.Reason{
		"expired-manifest":            messages.ReasonManifestExpired,
		"rolled-back-manifest":        messages.ReasonManifestRollback,
		"wrong-signature":             messages.ReasonManifestUntrusted,
		"truncated-manifest":          messages.ReasonManifestUntrusted,
		"manifest-from-artifact-host": messages.ReasonManifestUntrusted,
		"server-error":                messages.ReasonManifestUnreachable,
		"same-host":                   messages.ReasonSourceNotAllowed,
		"outside-origin":              messages.ReasonSourceNotAllowed,
		"plain-http":                  messages.ReasonSchemeNotAllowed,
	} {
		t.Run(name, func(t *testing.T) {
			fault(t, dir, name)
			catalogue, err := c.Refresh(t.Context(), messages.Secret{})
			got := tuf.ReasonOf(err)
			if err == nil {
				_, got = catalogue.Model("")
			}
			if got != want {
				t.Errorf("the reason is %s (%v), want %s", got, err, want)
			}
		})
	}
}
