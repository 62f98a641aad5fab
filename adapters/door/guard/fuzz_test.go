package guard

import (
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"testing"

	"companion/messages"
)

// FuzzDecide compares the guard with an oracle that implements L3 and L4 by other means: parsers and regular
// expressions of the standard library, and a window that keeps every event.
func FuzzDecide(f *testing.F) {
	f.Add(false, "GET", goodHost, "", "", false, "Bearer "+userToken, "", false, int64(0), uint8(0), int64(0))
	f.Add(false, "POST", "localhost:4321", "http://localhost:4321", "none", false, "", probeToken, false, int64(7), uint8(3), int64(0))
	f.Add(false, "GET", "[::1]:4321", "null", "cross-site", true, "Basic x", "k", true, int64(60e9), uint8(2), int64(0))
	f.Add(true, "OPTIONS", "127.0.0.1:4321.", "https://127.0.0.1:4321", "same-origin", false, "bearer  ", "", false, int64(-1), uint8(1), int64(0))
	f.Add(false, "GET", "localho\u017ft:4321", "http://localho\u017ft:4321", "", false, "Bearer "+userToken, "", false, int64(0), uint8(0), int64(0))
	f.Add(false, "GET", goodHost, "http://localho\u017ft:4321", "", false, "Bearer "+userToken, "", false, int64(0), uint8(0), int64(0))
	f.Add(false, "GET", goodHost, "", "", false, "Bearer "+userToken, " "+userToken, false, int64(0), uint8(0), int64(0))
	f.Add(false, "GET", goodHost, "", "", false, "Bearer "+editorToken, "", false, int64(0), uint8(0), editorExpires-1)
	f.Add(false, "GET", goodHost, "", "", false, "", editorToken, false, int64(0), uint8(0), editorExpires)
	f.Add(false, "GET", goodHost, "", "", false, "Bearer "+serviceToken, "", false, int64(0), uint8(2), editorExpires)
	f.Fuzz(func(t *testing.T, bad bool, method, host, origin, site string, twice bool, authorization, key string, upgrade bool, now int64, filled uint8, wall int64) {
		h := http.Header{}
		add := func(name, value string, times int) {
			for range times {
				h.Add(name, value)
			}
		}
		count := func(v string) int {
			switch {
			case v == "":
				return 0
			case twice:
				return 2
			}
			return 1
		}
		add("Origin", origin, count(origin))
		add("Sec-Fetch-Site", site, min(count(site), 1))
		add("Authorization", authorization, min(count(authorization), 1))
		add("X-Api-Key", key, min(count(key), 1))
		if upgrade {
			h.Add("Upgrade", "h2c")
		}
		w := &Windows{NewWindow(2, minute), NewWindow(2, minute), NewWindow(2, minute)}
		editor, service := NewWindow(2, minute), NewWindow(2, minute)
		tokens := NewTokens(messages.NewSecret(userToken), messages.NewSecret(probeToken), applications(editor, service)...)
		now &= 1<<40 - 1 // a monotonic clock
		events := min(int(filled), 2)
		for _, win := range []*Window{w.Failures, w.Admitted, w.Probe, editor, service} {
			for range events {
				win.take(0)
			}
		}
		r := &Request{Malformed: bad, Method: method, Host: host, Header: h, Now: now, Wall: wall}
		want := oracle(r, events == 2 && now < minute)
		got, _ := Decide(r, tokens, four, w)
		if got != verdicts[want] {
			t.Errorf("got %+v, want %s for %q %q %v", got, want, method, host, h)
		}
	})
}

// The letters are listed in both cases: (?i) folds Unicode, so ſ would match s.
var (
	bearerRE = regexp.MustCompile(`^[ \t]*[bB][eE][aA][rR][eE][rR] +([^ ].*?)[ \t]*$`)
	emptyRE  = regexp.MustCompile(`^[ \t]*([bB][eE][aA][rR][eE][rR])?[ \t]*$`)
	blanksRE = regexp.MustCompile(`^[ \t]*((?s:.*?))[ \t]*$`)
	hostRE   = regexp.MustCompile(`^(127\.0\.0\.1|[lL][oO][cC][aA][lL][hH][oO][sS][tT]):4321$`)
)

func oracle(r *Request, spent bool) messages.Reason {
	h := http.Header(r.Header)
	var token string
	if m := bearerRE.FindStringSubmatch(h.Get("Authorization")); m != nil {
		token = m[1]
	}
	key := blanksRE.FindStringSubmatch(h.Get("X-Api-Key"))[1]
	if r.Malformed || h.Get("Upgrade") != "" || key != "" && key != token && !emptyRE.MatchString(h.Get("Authorization")) {
		return messages.ReasonMalformedRequest
	}
	if key != "" {
		token = key
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodPost {
		return messages.ReasonMethodNotAllowed
	}
	if !hostRE.MatchString(r.Host) {
		return messages.ReasonHostNotAllowed
	}
	if site := h.Values("Sec-Fetch-Site"); len(site) == 1 && site[0] != "none" && site[0] != "same-origin" {
		return messages.ReasonCrossSiteForbidden
	}
	if origins := h.Values("Origin"); len(origins) > 1 || len(origins) == 1 && !ownOrigin(origins[0]) {
		return messages.ReasonCrossSiteForbidden
	}
	switch {
	case spent:
		return messages.ReasonRateLimited
	case token == "":
		return messages.ReasonMissingToken
	case token == editorToken && r.Wall >= editorExpires:
		return messages.ReasonInvalidToken
	case token != userToken && token != probeToken && token != editorToken && token != serviceToken:
		return messages.ReasonInvalidToken
	}
	return messages.ReasonOK
}

// ownOrigin parses the origin as a URL and its host as an address.
func ownOrigin(origin string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Scheme+"://"+u.Host != origin || (u.Scheme != "http" && u.Scheme != "https") || u.Port() != "4321" {
		return false
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil {
		return ip == netip.MustParseAddr("127.0.0.1")
	}
	return hostRE.MatchString(u.Host)
}
