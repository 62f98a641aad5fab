package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// tab is one tab of a browser.
type tab struct {
	t       *testing.T
	ctx     context.Context
	profile string // folder of the browser
}

// do runs steps that must succeed.
func (b *tab) do(doing string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatalf("%s: %v", doing, err)
	}
}

// evaluate runs an expression in the page with user activation, and waits for its promise.
func evaluate[T any](b *tab, expression string) T {
	b.t.Helper()
	value, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise,
		func(p *runtime.EvaluateParams) { p.UserGesture = new(true) }))
	if err != nil {
		b.t.Fatalf("in the page: %v", err)
	}
	return value
}

// try lets the attacking page make one attempt and returns what it learned.
func (b *tab) try(attempt, door, token string) string {
	b.t.Helper()
	arguments, err := json.Marshal([]string{attempt, door, token})
	if err != nil {
		b.t.Fatal(err)
	}
	return evaluate[string](b, fmt.Sprintf("attempt(...%s)", arguments))
}

// plant opens address with the attacking page as the answer, whatever listens there: the state of a browser
// after the attacker has rebound the page's name.
func (b *tab) plant(address string) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, fetch.Enable, fetch.EnableParams{
		Patterns: []*fetch.RequestPattern{{URLPattern: address}},
	}); err != nil {
		b.t.Fatalf("intercepting requests: %v", err)
	}
	paused := chromedp.Events(b.ctx, fetch.RequestPaused)
	answered := make(chan error, 1)
	go func() {
		for event, err := range paused {
			if err == nil {
				_, err = chromedp.Call(b.ctx, fetch.FulfillRequest, fetch.FulfillRequestParams{
					RequestID: event.RequestID, ResponseCode: 200,
					ResponseHeaders: []*fetch.HeaderEntry{{Name: "Content-Type", Value: "text/html"}},
					Body:            []byte(attackPage),
				})
			}
			answered <- err
			return
		}
	}()
	b.do("opening a planted page", chromedp.Navigate(address))
	if err := <-answered; err != nil {
		b.t.Fatalf("planting the page: %v", err)
	}
	if _, err := chromedp.Call(b.ctx, fetch.Disable, cdp.Empty{}); err != nil {
		b.t.Fatalf("ending the interception: %v", err)
	}
}

// picture saves a screenshot of the tab, for a person who runs the test with -artifacts.
func (b *tab) picture(name string) {
	b.t.Helper()
	image, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatalf("taking a picture: %v", err)
	}
	if err := os.WriteFile(filepath.Join(b.t.ArtifactDir(), name+".png"), image, 0o600); err != nil {
		b.t.Fatal(err)
	}
}
