package hub

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// A person signs in with Chromium: the page shows, the form's redirect reaches the loopback callback
// through the page's own content security policy, and carries code, state and iss (hub.md).
func TestSignInWithChromium(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("this test needs Chromium: install the package chromium")
	}
	dir := t.TempDir()
	hub := serve(t, dir).Hub

	callback := make(chan url.Values, 1)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/callback" {
			callback <- r.URL.Query()
		}
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })

	issuer := hub + "/api/v1/auth/native"
	query := url.Values{
		"response_type": {"code"}, "client_id": {"companion-development"}, "scope": {"vault:read"},
		"redirect_uri": {"http://" + listener.Addr().String() + "/callback"}, "state": {"a-state-of-some-length"},
		"code_challenge": {strings.Repeat("x", 43)}, "code_challenge_method": {"S256"},
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ctx, cancel = chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(browser), chromedp.NoSandbox, chromedp.IgnoreCertErrors)...)
	defer cancel()
	ctx, cancel = chromedp.NewContext(ctx)
	defer cancel()
	if err := chromedp.Do(ctx,
		chromedp.EmulateViewport(900, 700),
		chromedp.Navigate(issuer+"/authorize?"+query.Encode()),
		chromedp.WaitVisible(`button[type=submit]`),
	); err != nil {
		t.Fatal(err)
	}
	keepPicture(ctx, t)
	if err := chromedp.Do(ctx,
		chromedp.SendKeys(`input[name=user]`, "ada"),
		chromedp.SendKeys(`input[name=password]`, password(t, dir, "ada")),
		chromedp.Click(`button[type=submit]`),
	); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-callback:
		if got.Get("code") == "" || got.Get("state") != query.Get("state") || got.Get("iss") != issuer {
			t.Errorf("callback with %v", got)
		}
	case <-ctx.Done():
		t.Fatal("the browser never reached the callback")
	}
}

// keepPicture stores what the browser shows in the file that $HUBPAGE_PICTURE names, for a person who
// changes the page.
func keepPicture(ctx context.Context, t *testing.T) {
	t.Helper()
	file := os.Getenv("HUBPAGE_PICTURE")
	if file == "" {
		return
	}
	picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, picture, 0o600); err != nil {
		t.Fatal(err)
	}
}

func password(t *testing.T, dir, user string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "users.json"))
	if err != nil {
		t.Fatal(err)
	}
	var users []struct{ ID, Password string }
	if err := json.Unmarshal(data, &users); err != nil {
		t.Fatal(err)
	}
	for _, u := range users {
		if u.ID == user {
			return u.Password
		}
	}
	t.Fatalf("no user %s", user)
	return ""
}
