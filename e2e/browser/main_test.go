// Package browser holds the proofs that need a real browser or another user: what a hostile page can
// do to the front door and to a sign-in, what a person sees while signing in, and who may open the
// sockets. It drives Chromium, from the package of that name.
package browser

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"companion/e2e/harness"
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(strangerSocket); socket != "" {
		os.Exit(beStranger(socket))
	}
	harness.Main(m)
}

// hostRules map every name of attackers to this machine, and let the browser find no other name.
const hostRules = "MAP *.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"

// browseWithin ends a browser that waits for something that never appears. On a busy machine the longest test
// takes 40 seconds.
const browseWithin = 2 * time.Minute

// chromium starts a browser with an empty profile and returns the context of its first tab. Everything
// ends with the test.
func chromium(t *testing.T, more ...chromedp.ExecAllocatorOption) *tab {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("this test needs Chromium: install the package chromium")
	}
	profile := harness.TempDir(t)
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(profile), chromedp.Env("HOME=" + profile),
		chromedp.Flag("host-resolver-rules", hostRules),
		// Recent Chromium versions refuse or ask when a page of the internet calls this machine. Other
		// browsers do not, so the front door must not rely on it.
		chromedp.Flag("disable-features", "LocalNetworkAccessChecks"),
	}
	for _, flag := range strings.Fields("headless no-sandbox disable-gpu disable-quic no-first-run" +
		" disable-background-networking disable-component-update disable-sync") {
		options = append(options, chromedp.Flag(flag, true))
	}
	ctx, cancel := context.WithTimeout(t.Context(), browseWithin)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, append(options, more...)...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(900, 700)); err != nil {
		t.Fatalf("starting Chromium: %v", err)
	}
	return &tab{t, ctx, profile}
}
