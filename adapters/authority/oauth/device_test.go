package oauth

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"companion/messages"
)

// handled serves requests without a network, so that the clock of synctest covers the whole exchange.
type handled struct{ handler http.Handler }

// A handler that panics with http.ErrAbortHandler cuts the connection after the request was sent.
func (h handled) RoundTrip(r *http.Request) (answer *http.Response, err error) {
	defer func() {
		if recover() != nil {
			httptrace.ContextClientTrace(r.Context()).WroteHeaders()
			answer, err = nil, io.ErrUnexpectedEOF
		}
	}()
	w := httptest.NewRecorder()
	h.handler.ServeHTTP(w, r)
	return w.Result(), nil
}

// deviceHub offers device authorization; poll answers the nth token request.
type deviceHub struct {
	metadata map[string]any
	device   string // the answer of the device endpoint
	poll     func(n int) (status int, body string)
	polled   []time.Time
	forms    []string
}

func newDeviceHub(poll func(n int) (int, string)) (*deviceHub, *Client) {
	h := &deviceHub{metadata: goodMetadata(), poll: poll}
	h.metadata["device_authorization_endpoint"] = testIssuer + "/device"
	h.device = fmt.Sprintf(`{"device_code":"secret-device-code","user_code":"ABCD-EFGH","verification_uri":"%[1]s/verify",
		"verification_uri_complete":"%[1]s/verify?user_code=ABCD-EFGH","expires_in":600,"interval":7}`, testIssuer)
	c, err := New(Config{Issuer: testIssuer, SessionURL: "https://hub.example/s", Scope: "vault:read", HTTP: &http.Client{Transport: handled{h}}})
	if err != nil {
		panic(err)
	}
	return h, c
}

func (h *deviceHub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	switch r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:] {
	case "oauth-authorization-server":
		_ = json.NewEncoder(w).Encode(h.metadata)
	case "register":
		var reg registration
		_ = json.NewDecoder(r.Body).Decode(&reg)
		if len(reg.RedirectURIs) != 0 || fmt.Sprint(reg.GrantTypes) != "["+deviceGrant+" refresh_token]" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = fmt.Fprint(w, `{"client_id":"device-client"}`)
	case "device":
		h.forms = append(h.forms, r.PostForm.Encode())
		_, _ = fmt.Fprint(w, h.device)
	case "token":
		h.forms = append(h.forms, r.PostForm.Encode())
		h.polled = append(h.polled, time.Now())
		status, body := h.poll(len(h.polled))
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, body)
	}
}

const granted = `{"token_type":"Bearer","access_token":"a","expires_in":900,"refresh_token":"r"}`

func errorBody(code string) string { return `{"error":"` + code + `"}` }

// O11, RFC 8628: the page and the code are shown. Polling keeps the hub's interval, obeys slow_down, and ends with the grant.
func TestDeviceSignIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, c := newDeviceHub(func(n int) (int, string) {
			switch {
			case n == 2:
				return 400, errorBody("slow_down")
			case n < 5:
				return 400, errorBody("authorization_pending")
			}
			return 200, granted
		})
		began := time.Now()
		a, err := c.BeginDevice(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := messages.LoginPage{
			URL: testIssuer + "/verify", Complete: testIssuer + "/verify?user_code=ABCD-EFGH", Code: "ABCD-EFGH", Until: began.Round(0).Add(10 * time.Minute),
		}
		if got := a.Page(); got != want {
			t.Errorf("page: got %+v, want %+v", got, want)
		}
		g, err := a.Wait(t.Context())
		if err != nil || g.Access.Reveal() != "a" || g.Refresh.Reveal() != "r" || g.ClientID != "device-client" || g.Scope != "vault:read" {
			t.Fatalf("got %+v, %v; want the tokens of device-client with scope vault:read", g, err)
		}
		var waits []time.Duration
		for last := began; len(waits) < len(h.polled); last = h.polled[len(waits)-1] {
			waits = append(waits, h.polled[len(waits)].Sub(last))
		}
		if got, want := fmt.Sprint(waits), "[7s 7s 12s 12s 12s]"; got != want {
			t.Errorf("polling intervals: got %s, want %s (RFC 8628 section 3.5)", got, want)
		}
		if got, want := h.forms[1], "client_id=device-client&device_code=secret-device-code&grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code"; got != want {
			t.Errorf("form of a poll: got %s, want %s", got, want)
		}
	})
}

// O11: the ways in which an attempt ends without a grant, and failures that do not end it.
func TestDeviceEnds(t *testing.T) {
	for name, row := range map[string]struct {
		poll   func(n int) (int, string)
		want   messages.Reason
		detail string
		polls  int // at most
	}{
		"refused":         {func(int) (int, string) { return 400, errorBody("access_denied") }, messages.ReasonAuthorizationServerError, "access_denied", 1},
		"expired":         {func(int) (int, string) { return 400, errorBody("expired_token") }, messages.ReasonCallbackTimeout, "expired_token", 1},
		"spent":           {func(int) (int, string) { return 400, errorBody("invalid_grant") }, messages.ReasonTokenExchangeFailed, "invalid_grant", 1},
		"unusable answer": {func(int) (int, string) { return 200, "{}" }, messages.ReasonInvalidTokenResponse, "", 1},
		"not confirmed":   {func(int) (int, string) { return 400, errorBody("authorization_pending") }, messages.ReasonCallbackTimeout, "", 600 / 7},
		"broken for ever": {func(int) (int, string) { return 503, "" }, messages.ReasonCallbackTimeout, "", 14},
		"broken at first": {func(n int) (int, string) {
			if n < 3 {
				return 502, strings.Repeat("x", 1<<17)
			}
			return 200, granted
		}, messages.ReasonOK, "", 3},
		"an answer lost": {func(n int) (int, string) {
			if n < 3 {
				panic(http.ErrAbortHandler)
			}
			return 200, granted
		}, messages.ReasonOK, "", 3},
		"the grant lost": {func(n int) (int, string) {
			if n < 2 {
				panic(http.ErrAbortHandler)
			}
			return 400, errorBody("invalid_grant")
		}, messages.ReasonTokenExchangeFailed, "invalid_grant", 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, c := newDeviceHub(row.poll)
				a, err := c.BeginDevice(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				_, err = a.Wait(t.Context())
				if got := reasonOf(err); got != row.want || err != nil && AsError(err).Detail != row.detail {
					t.Errorf("got %v, want %s %q", err, row.want, row.detail)
				}
				if len(h.polled) > row.polls {
					t.Errorf("polls: got %d, want at most %d", len(h.polled), row.polls)
				}
			})
		})
	}
}

// O1, O11, T13: a device authorization response is checked before the user sees any of it.
func TestCheckDevice(t *testing.T) {
	_, c := newDeviceHub(nil)
	good := map[string]any{"device_code": "d", "user_code": "ABCD", "verification_uri": testIssuer + "/v", "expires_in": 600}
	for name, row := range map[string]struct {
		key   string
		value any
		ok    bool
	}{
		"least":                       {"device_code", "d", true},
		"interval":                    {"interval", 1, true},
		"interval 0":                  {"interval", 0, true},
		"interval null":               {"interval", nil, true},
		"complete":                    {"verification_uri_complete", testIssuer + "/v?user_code=ABCD", true},
		"no device code":              {"device_code", nil, false},
		"no user code":                {"user_code", nil, false},
		"user code steers a terminal": {"user_code", "\x1b[2J", false},
		"user code too long":          {"user_code", strings.Repeat("A", 65), false},
		"no page":                     {"verification_uri", nil, false},
		"page elsewhere":              {"verification_uri", "https://evil.example/v", false},
		"page is http":                {"verification_uri", "http://hub.example/v", false},
		"page is a script":            {"verification_uri", "javascript:alert(1)", false},
		"complete elsewhere":          {"verification_uri_complete", "https://evil.example/v", false},
		"no expiry":                   {"expires_in", nil, false},
		"expiry as text":              {"expires_in", "600", false},
		"negative interval":           {"interval", -1, false},
		"interval as text":            {"interval", "5", false},
	} {
		t.Run(name, func(t *testing.T) {
			body := map[string]any{}
			for k, v := range good {
				body[k] = v
			}
			body[row.key] = row.value
			if row.value == nil {
				delete(body, row.key)
			}
			encoded, _ := json.Marshal(body)
			if _, ok := c.checkDevice(encoded, time.Now()); ok != row.ok {
				t.Errorf("%s: got accepted %v, want %v", encoded, ok, row.ok)
			}
		})
	}
}

// O11: if the hub offers no device authorization, the attempt fails before a registration.
func TestDeviceUnsupported(t *testing.T) {
	h, c := newDeviceHub(nil)
	delete(h.metadata, "device_authorization_endpoint")
	if _, err := c.BeginDevice(t.Context()); reasonOf(err) != messages.ReasonDeviceUnsupported {
		t.Errorf("got %v, want %s", err, messages.ReasonDeviceUnsupported)
	}
}
