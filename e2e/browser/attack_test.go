package browser

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"companion/e2e/harness"
	"companion/messages"
)

const (
	malformed = messages.ReasonMalformedRequest
	method    = messages.ReasonMethodNotAllowed
	host      = messages.ReasonHostNotAllowed
	crossSite = messages.ReasonCrossSiteForbidden
)

// The attempts of attack.js, and why the front door refuses each one. The page calls from another origin by
// its own address, from a rebound name on another port, and from a rebound name on the front door's own port.
var attempts = []struct {
	name                         string
	fromElsewhere, rebound, same messages.Reason
}{
	{"fetch", crossSite, host, host},
	{"no-cors POST", crossSite, host, host},
	{"form POST", crossSite, host, host},
	{"image", crossSite, host, host},
	{"script", crossSite, host, host},
	{"WebSocket", malformed, malformed, malformed},
	{"EventSource", crossSite, host, host},
	{"preflight", method, method, host}, // a page asks its own origin without one
	{"iframe", crossSite, host, host},
	{"navigation", crossSite, host, host},
	{"beacon", crossSite, host, host},
}

// origin is the address of the attacking page, and the name by which it calls the front door.
type origin struct {
	name string
	page func(page, door int) string // its URL
	door string                      // host
	// planted pages have the front door's own address; no server serves them.
	planted bool
}

var origins = []origin{
	{name: "another port", page: at("http://127.0.0.1:%d/"), door: "127.0.0.1"},
	{name: "another site", page: at("http://hostile.example:%d/"), door: "127.0.0.1"},
	{name: "a sandboxed page", page: at("http://127.0.0.1:%d/sandboxed"), door: "localhost"},
	{name: "a rebound name, another port", page: at("http://rebound.example:%d/"), door: "rebound.example"},
	{name: "a rebound name, the same port", door: "rebound.example", planted: true,
		page: func(_, door int) string { return fmt.Sprintf("http://rebound.example:%d/page", door) }},
}

func at(format string) func(page, door int) string {
	return func(page, _ int) string { return fmt.Sprintf(format, page) }
}

// open opens the attacking page and returns the base URL by which it calls the front door.
func (o origin) open(b *tab, page, door int) string {
	b.t.Helper()
	if o.planted {
		b.plant(o.page(page, door))
	} else {
		b.do("opening the attacking page", chromedp.Navigate(o.page(page, door)))
	}
	return fmt.Sprintf("http://%s:%d", o.door, door)
}

// Check of the test itself: against a server without controls every attempt arrives, and the page reads
// everything that a page can read.
func TestPagesAtAnOpenDoor(t *testing.T) {
	b, page := chromium(t), pageServer(t)
	for _, from := range origins {
		t.Run(from.name, func(t *testing.T) {
			door := newOpenDoor(t)
			b := &tab{t, b.ctx, b.profile}
			base := from.open(b, page, door.port)
			for _, a := range attempts {
				learned := b.try(a.name, base, "guess")
				if want := map[bool]string{true: "", false: "open"}[a.name == "beacon"]; learned != want {
					t.Errorf("%s: the page learned %q, want %q", a.name, learned, want)
				}
				await(t, a.name+" to arrive", func() bool { return door.count(a.name) == 1 })
			}
		})
	}
}

// T1, T2, L1, L3, L4, L7, L11: no page of any origin is admitted or reads anything, with no token, with
// a wrong one, and even with the right one. The access log says why.
func testPages(t *testing.T, c *harness.Companion) {
	b, page := chromium(t), pageServer(t)
	baseURL, right := c.Endpoint()
	var door int
	if _, err := fmt.Sscanf(baseURL, "http://127.0.0.1:%d/v1", &door); err != nil {
		t.Fatalf("the base URL is %q: %v", baseURL, err)
	}
	log := accessLog{c: c}
	log.skip()
	for _, from := range origins {
		t.Run(from.name, func(t *testing.T) {
			b := &tab{t, b.ctx, b.profile}
			base := from.open(b, page, door)
			for _, token := range []string{"", "guess", right} {
				for _, a := range attempts {
					want := a.fromElsewhere
					if from.planted {
						want = a.same
					} else if from.door == "rebound.example" {
						want = a.rebound
					}
					log.pace()
					learned := b.try(a.name, base, token)
					log.expect(t, a.name, want, a.name == "navigation")
					if !nothing(learned, from.planted, want) {
						t.Errorf("%s: the page learned %q, want nothing", a.name, learned)
					}
				}
			}
		})
	}
	// A person who types the address is not an attacker, and gets the answer for a missing token.
	for address, want := range map[string]messages.Reason{"127.0.0.1": messages.ReasonMissingToken, "rebound.example": host} {
		t.Run("address bar, "+address, func(t *testing.T) {
			b := &tab{t, b.ctx, b.profile}
			log.pace()
			b.do("opening the front door", chromedp.Navigate(fmt.Sprintf("http://%s:%d/v1/models", address, door)))
			log.expect(t, "address bar", want, true)
			if shown := evaluate[string](b, "document.body.innerText"); !nothing(shown, true, want) {
				t.Errorf("the browser shows %q, want nothing of the answer", shown)
			}
		})
	}
	log.onlyProbes(t)
}

// nothing reports whether a page learned only that it was refused. The browser treats a page under the front
// door's own address as same-origin and shows it the refusal.
func nothing(learned string, sameOrigin bool, reason messages.Reason) bool {
	if learned == "" {
		return true
	}
	var body struct {
		Error struct{ Code messages.Reason }
	}
	return sameOrigin && json.Unmarshal([]byte(learned), &body) == nil && body.Error.Code == reason &&
		!strings.Contains(learned, harness.ModelName)
}

// accessLog reads the companion's log as it grows. It needs the level debug: other levels do not log the
// requests of the health probe.
type accessLog struct {
	c     *harness.Companion
	read  int         // bytes
	times []time.Time // of the last lines
}

// pace waits until the log has room for the lines of one more attempt: it has at most ten lines a second for each
// reason of a refusal without a token.
func (l *accessLog) pace() {
	for {
		l.times = slices.DeleteFunc(l.times, func(at time.Time) bool { return time.Since(at) > 1100*time.Millisecond })
		if len(l.times) <= 7 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// line is what a test needs of a line of the access log (L11).
type line struct {
	Event, Level string
	Reason       messages.Reason
}

// next returns the lines of requests since the last call, without those of the health probe.
func (l *accessLog) next(t *testing.T) []line {
	t.Helper()
	requests, read := requestLines(t, l.c.Log()[l.read:])
	l.read += read
	var others []line
	for _, r := range requests {
		if !r.probe() {
			l.times = append(l.times, time.Now())
			others = append(others, r)
		}
	}
	return others
}

// skip forgets what was logged so far.
func (l *accessLog) skip() { l.read = len(l.c.Log()) }

// expect waits until the log has the attempt, and fails for any reason but the given one. After a navigation
// the browser also requests the site's icon, as a page of that site or, when a sandbox holds the window, with
// an opaque origin.
func (l *accessLog) expect(t *testing.T, attempt string, want messages.Reason, navigates bool) {
	t.Helper()
	var lines []line
	await(t, attempt+" to be logged", func() bool {
		lines = append(lines, l.next(t)...)
		return len(lines) > 0
	})
	if navigates {
		for late := time.Now().Add(time.Second); len(lines) < 2 && time.Now().Before(late); time.Sleep(10 * time.Millisecond) {
			lines = append(lines, l.next(t)...)
		}
	}
	for i, got := range lines {
		icon := navigates && i > 0 && got.Reason == messages.ReasonMissingToken
		if got.Reason != want && !icon {
			t.Errorf("%s: the access log says %s, want %s", attempt, got.Reason, want)
		}
	}
}

// onlyProbes checks that status counts no admitted request except those that the log has for the health probe
// since the daemon's start.
func (l *accessLog) onlyProbes(t *testing.T) {
	t.Helper()
	var admitted, probes int
	await(t, "the counters and the log to agree", func() bool {
		requests, _ := requestLines(t, l.c.Log())
		admitted, probes = 0, 0
		for _, r := range requests {
			if r.probe() {
				probes++
			} else if r.Reason == messages.ReasonOK {
				t.Fatal("a request was admitted")
			}
		}
		status, answered := l.c.Status()
		admitted = int(status.FrontDoor.Verdicts[messages.ReasonOK])
		return answered && probes > 0 && admitted == probes
	})
}

func (l line) probe() bool { return l.Reason == messages.ReasonOK && l.Level == "debug" }

// requestLines returns the requests in a piece of the log, and the length of its complete lines.
func requestLines(t *testing.T, log string) (requests []line, whole int) {
	t.Helper()
	whole = strings.LastIndexByte(log, '\n') + 1
	for text := range strings.Lines(log[:whole]) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("a line of the log: %v", err)
		}
		if l.Event == "request" {
			requests = append(requests, l)
		}
	}
	return requests, whole
}

// await waits for an effect that the browser or the daemon causes by itself.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("got no %s before the deadline, want it", what)
		}
	}
}
