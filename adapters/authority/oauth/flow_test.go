package oauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"companion/adapters/authority/transport"
	"companion/messages"
)

// signIn runs one attempt. visit acts as the browser and returns the last page, which signIn returns too.
func signIn(t testing.TB, h *hub, c *Client, visit func(a *Attempt) string) (Grant, string, error) {
	t.Helper()
	a, err := c.Begin(t.Context())
	if err != nil {
		return Grant{}, "", err
	}
	shown := make(chan string, 1)
	go func() { shown <- visit(a) }()
	g, err := a.Wait(t.Context())
	a.Close(err == nil)
	return g, <-shown, err
}

func reasonOf(err error) messages.Reason {
	var e *Error
	if err == nil {
		return messages.ReasonOK
	}
	if errors.As(err, &e) {
		return e.Reason
	}
	return messages.Reason(fmt.Sprintf("%T", err))
}

// O1, O2, O5, O6, O7, O10: the whole flow.
func TestSignIn(t *testing.T) {
	h, c := newHub(t)
	var header http.Header
	g, shown, err := signIn(t, h, c, func(a *Attempt) string {
		if strings.Contains(a.Page().URL, a.want.state) || strings.Contains(a.Page().URL, "challenge") {
			t.Errorf("start URL: got %s, want neither state nor challenge in it", a.Page().URL)
		}
		var body string
		_, header, body = h.browse(a.Page().URL)
		return body
	})
	if err != nil {
		t.Fatal(err)
	}
	if g.Access.Reveal() != "access-1" || g.Refresh.Reveal() != "refresh-1" || g.ClientID != "client-1" || g.Issuer != h.issuer {
		t.Fatalf("got %+v, want access-1, refresh-1, client-1 of %s", g, h.issuer)
	}
	if shown != signedInPage {
		t.Fatalf("page: got %s, want the signed-in page", shown)
	}
	if got := header.Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none'") {
		t.Fatalf("Content-Security-Policy: got %q, want default-src 'none'", got)
	}
	if got := h.forms["token"].Get("client_secret"); got != "" || h.forms["token"].Has("client_secret") {
		t.Fatalf("client_secret: got %q, want none", got)
	}
	if !strings.Contains(h.redirect, "/callback/") || len(h.redirect) < len("http://127.0.0.1:1/callback/")+43 {
		t.Fatalf("redirect URI: got %s, want a callback path that ends in a random segment", h.redirect)
	}
}

// O6: with a configured client id no client is registered, and the callback path is /callback.
func TestConfiguredClient(t *testing.T) {
	h, c := newHub(t)
	c.config.ClientID, h.registered = "configured", "configured"
	h.answer["authorize"] = func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		h.redirect, h.challenge, h.codes["k"] = q.Get("redirect_uri"), q.Get("code_challenge"), true
		back := url.Values{"code": {"k"}, "state": {q.Get("state")}, "iss": {h.issuer}}
		http.Redirect(w, r, h.redirect+"?"+back.Encode(), http.StatusFound)
	}
	_, _, err := signIn(t, h, c, func(a *Attempt) string { _, _, b := h.browse(a.Page().URL); return b })
	if err != nil || h.count("register") != 0 || !strings.HasSuffix(h.redirect, "/callback") {
		t.Fatalf("got %v, %d registrations, redirect URI %s; want none, 0, a path /callback", err, h.count("register"), h.redirect)
	}
}

// O2: on IPv6 the listener binds the configured literal, and the Host header must match it exactly.
func TestIPv6(t *testing.T) {
	h, c := newHub(t)
	c.config.Loopback = "::1"
	_, shown, err := signIn(t, h, c, func(a *Attempt) string { _, _, b := h.browse(a.Page().URL); return b })
	if err != nil || shown != signedInPage || !strings.HasPrefix(h.redirect, "http://[::1]:") {
		t.Fatalf("got %v, redirect URI %s; want none, http://[::1]:…", err, h.redirect)
	}
}

// O2: if the address cannot be bound, the attempt ends before a client is registered or a page is shown.
func TestCannotBind(t *testing.T) {
	h, c := newHub(t)
	c.config.Loopback = "192.0.2.1" // a documentation address, never local (RFC 5737)
	if _, err := c.Begin(t.Context()); reasonOf(err) != messages.ReasonBindFailed || h.count("register") != 0 {
		t.Fatalf("got %v, %d registrations; want bind_failed, 0", err, h.count("register"))
	}
}

// T13: a hostile callback client, and a hostile server on the front channel (O3, O4, O10).
func TestHostileCallback(t *testing.T) {
	rows := map[string]struct {
		query func(a *Attempt) url.Values
		want  messages.Reason
	}{
		"mix-up": {func(a *Attempt) url.Values {
			return url.Values{"code": {"c"}, "state": {a.want.state}, "iss": {"https://evil.example"}}
		}, messages.ReasonIssuerMismatch},
		"no iss": {func(a *Attempt) url.Values { return url.Values{"code": {"c"}, "state": {a.want.state}} }, messages.ReasonIssuerMissing},
		"server error": {func(a *Attempt) url.Values {
			return url.Values{"state": {a.want.state}, "error": {"<script>alert(1)</script>"}, "error_description": {"free text"}}
		}, messages.ReasonAuthorizationServerError},
		"code injection": {func(a *Attempt) url.Values {
			return url.Values{"code": {"stolen"}, "state": {a.want.state}, "iss": {a.want.issuer}}
		}, messages.ReasonTokenExchangeFailed},
		"no code": {func(a *Attempt) url.Values { return url.Values{"state": {a.want.state}, "iss": {a.want.issuer}} }, messages.ReasonMissingCode},
	}
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			h, c := newHub(t)
			g, shown, err := signIn(t, h, c, func(a *Attempt) string {
				_, _, body := h.browse(a.redirectURI + "?" + r.query(a).Encode())
				return body
			})
			if got := reasonOf(err); got != r.want {
				t.Fatalf("got %s, want %s", got, r.want)
			}
			if !g.Access.IsZero() || shown != failedPage {
				t.Fatalf("got tokens, or page %s; want no token and the failure page", shown)
			}
			if strings.Contains(err.Error(), "script") || strings.Contains(err.Error(), "free text") {
				t.Fatalf("got %v, want no free text of the server", err)
			}
			if r.want != messages.ReasonTokenExchangeFailed && h.count("token") != 0 {
				t.Fatalf("refused callback: got %d token requests, want none", h.count("token"))
			}
		})
	}
}

// strays returns callbacks without the attempt's state, by the reason that they cause.
func strays(a *Attempt) map[messages.Reason]url.Values {
	return map[messages.Reason]url.Values{
		messages.ReasonStateMismatch:            {"code": {"c"}, "state": {"x"}, "iss": {a.want.issuer}},
		messages.ReasonStateMissing:             {"code": {"c"}, "iss": {a.want.issuer}},
		messages.ReasonAuthorizationServerError: {"error": {"access_denied"}, "state": {"x"}, "iss": {a.want.issuer}},
	}
}

// O3, O4, T13: a callback without the attempt's state gets an error page and does not end the attempt; the user's own callback
// still works. If none follows, the time-out has the reason of the stray callback.
func TestStrayCallbackEndsNothing(t *testing.T) {
	h, c := newHub(t)
	_, shown, err := signIn(t, h, c, func(a *Attempt) string {
		for reason, query := range strays(a) {
			for range 3 {
				if status, _, body := h.browse(a.redirectURI + "?" + query.Encode()); status != http.StatusBadRequest || body != strayPage {
					t.Errorf("%s: got status %d, page %q; want 400 and the stray page", reason, status, body)
				}
			}
		}
		_, _, body := h.browse(a.Page().URL)
		return body
	})
	if err != nil || shown != signedInPage {
		t.Fatalf("sign-in after stray callbacks: got %v, page %q; want the signed-in page", err, shown)
	}
	if h.count("token") != 1 {
		t.Errorf("got %d token requests, want 1", h.count("token"))
	}
	for _, reason := range []messages.Reason{messages.ReasonStateMismatch, messages.ReasonStateMissing, messages.ReasonAuthorizationServerError} {
		h, c := newHub(t)
		c.config.Timeout = 300 * time.Millisecond
		_, _, err := signIn(t, h, c, func(a *Attempt) string {
			_, _, body := h.browse(a.redirectURI + "?" + strays(a)[reason].Encode())
			return body
		})
		if got := reasonOf(err); got != reason {
			t.Errorf("at the time-out: got %s, want %s", got, reason)
		}
	}
}

// O2: a link preview or prefetch does not use up the start page; only the callback does.
func TestStartPageSurvivesPreviews(t *testing.T) {
	h, c := newHub(t)
	preview := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer preview.CloseIdleConnections()
	_, shown, err := signIn(t, h, c, func(a *Attempt) string {
		for _, header := range []http.Header{{}, {"Sec-Purpose": {"prefetch;prerender"}}, {"Purpose": {"prefetch"}}, {"User-Agent": {"Slackbot-LinkExpanding 1.0"}}} {
			for _, method := range []string{http.MethodHead, http.MethodGet} {
				req, err := http.NewRequest(method, a.Page().URL, nil)
				if err != nil {
					t.Error(err)
				}
				req.Header = header
				resp, err := preview.Do(req)
				if err != nil {
					t.Error(err)
					continue
				}
				resp.Body.Close()
			}
		}
		_, _, body := h.browse(a.Page().URL)
		return body
	})
	if err != nil || shown != signedInPage {
		t.Fatalf("sign-in after previews: got %v, page %q; want the signed-in page", err, shown)
	}
}

// O2: neither idle connections of another process nor requests without the state block the user's browser.
func TestCrowdedRedirectListener(t *testing.T) {
	h, c := newHub(t)
	const crowd = 1000
	_, shown, err := signIn(t, h, c, func(a *Attempt) string {
		for range crowd {
			conn, err := net.Dial("tcp", a.host)
			if err != nil {
				t.Error(err)
				break
			}
			defer conn.Close()
		}
		var hostile sync.WaitGroup
		for range 20 {
			hostile.Go(func() {
				for range crowd / 20 {
					h.browse(a.redirectURI + "?code=c&state=x")
				}
			})
		}
		_, _, body := h.browse(a.Page().URL)
		hostile.Wait()
		return body
	})
	if err != nil || shown != signedInPage {
		t.Fatalf("with %d idle connections and %d hostile requests: got %v, page %q; want the signed-in page", crowd, crowd, err, shown)
	}
}

// O2: a connection that the browser opened in advance does not delay the end of the attempt.
func TestSpareConnectionDelaysNothing(t *testing.T) {
	h, c := newHub(t)
	a, err := c.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	spare, err := net.Dial("tcp", a.host)
	if err != nil {
		t.Fatal(err)
	}
	defer spare.Close()
	h.browse("http://" + a.host + "/") // after this response the listener has accepted the spare connection
	shown := make(chan string, 1)
	go func() { _, _, body := h.browse(a.Page().URL); shown <- body }()
	if _, err := a.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	a.Close(true)
	if took := time.Since(began); took >= showWithin {
		t.Errorf("Close with an idle connection: got %v, want less than %v", took, showWithin)
	}
	if body := <-shown; body != signedInPage {
		t.Errorf("page: got %q, want the whole signed-in page", body)
	}
	if _, err := spare.Read(make([]byte, 1)); err == nil {
		t.Error("spare connection: got it open, want it closed")
	}
}

// O7, O8, O9: the status of a response is judged before its body. A body that is too long or truncated does not turn a
// temporary or final refusal into a lost answer, and a revocation with status 200 has succeeded.
func TestStatusBeforeBody(t *testing.T) {
	bodies := map[string]func(w http.ResponseWriter, status int){
		"long": func(w http.ResponseWriter, status int) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, strings.Repeat("x", maxTokenAnswer+1))
		},
		"cut": func(w http.ResponseWriter, status int) {
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "<html>")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
	}
	for name, body := range bodies {
		for status, want := range map[int]Retry{
			429: RetryLater, 408: RetryLater, 500: RetryLater, 502: RetryLater, 503: RetryLater, 504: RetryLater,
			400: RetryNever, 401: RetryNever, 404: RetryNever, 307: RetryNever, 200: RetryUnsafe, 201: RetryUnsafe,
		} {
			h, c := newHub(t)
			h.server.Config.ErrorLog = discard
			h.answer["token"] = func(w http.ResponseWriter, _ *http.Request) { body(w, status) }
			_, err := c.Refresh(t.Context(), "client-1", messages.NewSecret("refresh-1"), nil)
			if e := AsError(err); e.Retry != want || e.SessionOver() {
				t.Errorf("refresh, %d with a %s body: got retry %d, over %v; want %d, false (%v)", status, name, e.Retry, e.SessionOver(), want, errors.Unwrap(err))
			}
			h.server.CloseClientConnections()
		}
		h, c := newHub(t)
		h.server.Config.ErrorLog = discard
		h.answer["revoke"] = func(w http.ResponseWriter, _ *http.Request) { body(w, 200) }
		if err := c.Revoke(t.Context(), "client-1", messages.NewSecret("refresh-1")); err != nil {
			t.Errorf("revocation, 200 with a %s body: got %v, want no error", name, err)
		}
	}
}

// O5: a first response without scope grants the requested scope; a refresh response without scope does not change it (RFC 6749
// sections 5.1 and 6).
func TestScope(t *testing.T) {
	h, c := newHub(t)
	g, _, err := signIn(t, h, c, func(a *Attempt) string { _, _, b := h.browse(a.Page().URL); return b })
	if err != nil || g.Scope != c.config.Scope {
		t.Errorf("first response without scope: got %q, %v; want %q", g.Scope, err, c.config.Scope)
	}
	for body, want := range map[string]string{
		`{"token_type":"bearer","access_token":"a","expires_in":1}`:                      "",
		`{"token_type":"bearer","access_token":"a","expires_in":1,"scope":"vault:read"}`: "vault:read",
	} {
		h.answer["token"] = func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
		got, err := c.Refresh(t.Context(), "client-1", messages.NewSecret("refresh-1"), nil)
		if err != nil || got.Scope != want {
			t.Errorf("refresh response %s: got scope %q, %v; want %q", body, got.Scope, err, want)
		}
	}
}

// O8: the note is written after all checks and right before sending; if it cannot be written, nothing is sent.
func TestNoteBeforeSending(t *testing.T) {
	h, c := newHub(t)
	noted := false
	h.answer["token"] = func(w http.ResponseWriter, _ *http.Request) {
		if !noted {
			t.Error("token sent: got no note before it, want one")
		}
		_, _ = io.WriteString(w, `{"token_type":"bearer","access_token":"a","expires_in":1}`)
	}
	if _, err := c.Refresh(t.Context(), "client-1", messages.NewSecret("r"), func() error { noted = true; return nil }); err != nil {
		t.Fatal(err)
	}
	_, err := c.Refresh(t.Context(), "client-1", messages.NewSecret("r"), func() error { return errors.New("disk full") })
	if AsError(err).Retry != RetryLater || h.count("token") != 1 {
		t.Errorf("failing note: got %v, %d token requests; want retry later, 1", err, h.count("token"))
	}
	h.answer["oauth-authorization-server"] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }
	noted = false
	if _, err := c.Refresh(t.Context(), "client-1", messages.NewSecret("r"), func() error { noted = true; return nil }); err == nil || noted {
		t.Errorf("unreachable hub: got %v, note %v; want an error, false", err, noted)
	}
}

// O4: iss is required if the metadata announces it or the hub is first-party. If present, it must be right.
func TestIssRequired(t *testing.T) {
	for _, r := range []struct {
		firstParty, announced bool
		iss                   string
		want                  messages.Reason
	}{
		{true, true, "", messages.ReasonIssuerMissing},
		{true, false, "", messages.ReasonIssuerMissing},
		{false, true, "", messages.ReasonIssuerMissing},
		{false, false, "", messages.ReasonOK},
		{false, false, "https://evil.example", messages.ReasonIssuerMismatch},
	} {
		h, c := newHub(t)
		c.config.FirstParty = r.firstParty
		h.metadata["authorization_response_iss_parameter_supported"] = r.announced
		h.iss = r.iss
		_, _, err := signIn(t, h, c, func(a *Attempt) string { _, _, b := h.browse(a.Page().URL); return b })
		if got := reasonOf(err); got != r.want {
			t.Errorf("%+v: got %s, want %s", r, got, r.want)
		}
	}
}

// O2, O3: requests other than the callback do not end the attempt; the state is valid for one callback; afterwards the
// listener is closed.
func TestNoiseDoesNotEndTheAttempt(t *testing.T) {
	h, c := newHub(t)
	a, err := c.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + a.host
	good := url.Values{"code": {"code-1"}, "state": {a.want.state}, "iss": {a.want.issuer}}
	for target, want := range map[string]int{
		base + "/favicon.ico": 404, base + "/": 404, base + "/callback": 404, base + a.callbackPath + "/": 404,
		base + a.callbackPath + "?code=a&code=b&state=" + a.want.state:                  400,
		strings.Replace(base, "127.0.0.1", "localhost", 1) + a.callbackPath + "?code=a": 403,
	} {
		if status, _, body := h.browse(target); status != want {
			t.Fatalf("%s: got %d %s, want %d", strings.TrimPrefix(target, base), status, body, want)
		}
	}
	resp, err := http.Post(a.redirectURI+"?"+good.Encode(), "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 405 {
		t.Fatalf("POST: got %d, want 405", resp.StatusCode)
	}
	first := make(chan string, 1)
	go func() { _, _, body := h.browse(a.Page().URL); first <- body }()
	if _, err := a.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, body := h.browse(a.redirectURI + "?" + good.Encode()); body != usedPage {
		t.Fatalf("second callback: got %s, want the used page", body)
	}
	if _, _, body := h.browse(a.Page().URL); body != usedPage {
		t.Fatalf("second start: got %s, want the used page", body)
	}
	a.Close(true)
	if body := <-first; body != signedInPage {
		t.Fatalf("got %v, want %v", body, signedInPage)
	}
	if status, _, _ := h.browse(a.redirectURI); status != 0 {
		t.Fatalf("after Close: got status %d, want no listener", status)
	}
}

// O2: the attempt ends by time-out and by cancel, and leaves no listener.
func TestAttemptEnds(t *testing.T) {
	h, c := newHub(t)
	c.config.Timeout = 30 * time.Millisecond
	_, _, err := signIn(t, h, c, func(*Attempt) string { return "" })
	if reasonOf(err) != messages.ReasonCallbackTimeout {
		t.Fatalf("got %v, want %v", err, messages.ReasonCallbackTimeout)
	}
	c.config.Timeout = time.Minute
	ctx, cancel := context.WithCancel(t.Context())
	a, err := c.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := a.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want %v", err, context.Canceled)
	}
	a.Close(false)
	if status, _, _ := h.browse(a.Page().URL); status != 0 {
		t.Fatalf("after Close: got status %d, want no listener", status)
	}
}

// O2, A9: a request that arrives while the attempt closes is not counted, because a count that rises while Close waits for zero
// makes sync.WaitGroup panic. It gets no answer.
func TestRequestWhileClosing(t *testing.T) {
	_, c := newHub(t)
	a, err := c.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a.Close(false)
	w := httptest.NewRecorder()
	a.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://"+a.host+a.startPath, nil))
	if got := w.Header(); len(got) != 0 || w.Body.Len() != 0 {
		t.Errorf("got headers %v and %d bytes, want none", got, w.Body.Len())
	}
}

// T13: a hostile server on the back channel: every response is checked, no redirect is followed (O1, O6, O7).
func TestHostileServer(t *testing.T) {
	elsewhere := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://evil.example/", http.StatusTemporaryRedirect)
	}
	huge := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"x":"`+strings.Repeat("a", maxTokenAnswer)+`"}`)
	}
	html := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>error</html>") }
	broken := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }
	rows := map[string]struct {
		endpoint string
		answer   http.HandlerFunc
		want     messages.Reason
	}{
		"metadata redirects":     {"oauth-authorization-server", elsewhere, messages.ReasonMetadataInvalid},
		"metadata is huge":       {"oauth-authorization-server", huge, messages.ReasonMetadataInvalid},
		"metadata is html":       {"oauth-authorization-server", html, messages.ReasonMetadataInvalid},
		"metadata fails":         {"oauth-authorization-server", broken, messages.ReasonHubUnreachable},
		"registration redirects": {"register", elsewhere, messages.ReasonRegistrationFailed},
		"registration is html":   {"register", html, messages.ReasonRegistrationFailed},
		"registration fails":     {"register", broken, messages.ReasonRegistrationFailed},
		"registration is huge":   {"register", huge, messages.ReasonRegistrationFailed},
		"token redirects":        {"token", elsewhere, messages.ReasonTokenExchangeFailed},
		"token is huge":          {"token", huge, messages.ReasonTokenExchangeFailed},
		"token is html":          {"token", html, messages.ReasonInvalidTokenResponse},
		"token fails":            {"token", broken, messages.ReasonTokenExchangeFailed},
		"token of another type": {"token", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"token_type":"DPoP","access_token":"a","expires_in":1}`)
		}, messages.ReasonInvalidTokenResponse},
	}
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			h, c := newHub(t)
			h.answer[r.endpoint] = r.answer
			g, _, err := signIn(t, h, c, func(a *Attempt) string { _, _, b := h.browse(a.Page().URL); return b })
			if got := reasonOf(err); got != r.want {
				t.Fatalf("got %s (%v), want %s", got, errors.Unwrap(err), r.want)
			}
			if !g.Access.IsZero() {
				t.Fatal("refused response: got tokens, want none")
			}
			if h.count("token") > 1 {
				t.Fatalf("got %d token requests, want at most 1", h.count("token"))
			}
		})
	}
}

// O1: no request is sent to a hub whose certificate is not trusted.
func TestUnknownAuthority(t *testing.T) {
	h, c := newHub(t)
	plain, err := transport.New("")
	if err != nil {
		t.Fatal(err)
	}
	c.config.HTTP = plain
	h.server.Config.ErrorLog = discard
	if _, err := c.Begin(t.Context()); reasonOf(err) != messages.ReasonHubUnreachable {
		t.Fatalf("got %v, want %v", err, messages.ReasonHubUnreachable)
	}
	if h.count("oauth-authorization-server") != 0 {
		t.Fatalf("got %d requests, want none", h.count("oauth-authorization-server"))
	}
}

// O8: for each failed refresh, whether it may be repeated.
func TestRefresh(t *testing.T) {
	status := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}
	}
	cut := func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }
	rows := map[string]struct {
		endpoint string
		answer   http.HandlerFunc
		retry    Retry
		over     bool
	}{
		"reuse noticed":        {"token", status(400, `{"error":"invalid_grant"}`), RetryNever, true},
		"client unknown":       {"token", status(401, `{"error":"invalid_client"}`), RetryNever, true},
		"another error":        {"token", status(400, `{"error":"invalid_scope"}`), RetryNever, false},
		"an error of its own":  {"token", status(400, `{"error":"invalid_grant_or_so"}`), RetryNever, false},
		"server broken":        {"token", status(503, ``), RetryLater, false},
		"too many":             {"token", status(429, ``), RetryLater, false},
		"metadata unreachable": {"oauth-authorization-server", status(502, ``), RetryLater, false},
		"answer lost":          {"token", cut, RetryUnsafe, false},
		"answer unusable":      {"token", status(200, `{"token_type":"bearer"}`), RetryUnsafe, false},
	}
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			h, c := newHub(t)
			h.server.Config.ErrorLog = discard
			h.answer[r.endpoint] = r.answer
			_, err := c.Refresh(t.Context(), "client-1", messages.NewSecret("refresh-1"), nil)
			var e *Error
			if !errors.As(err, &e) || e.Retry != r.retry || e.SessionOver() != r.over {
				t.Fatalf("got %+v, want retry %d, session over %v", err, r.retry, r.over)
			}
			if h.count("token") > 1 {
				t.Fatalf("got %d token requests, want at most 1", h.count("token"))
			}
		})
	}
	t.Run("rotation", func(t *testing.T) {
		h, c := newHub(t)
		got, err := c.Refresh(t.Context(), "client-1", messages.NewSecret("refresh-1"), nil)
		if err != nil || got.Access.Reveal() != "access-2" || got.Refresh.Reveal() != "refresh-2" {
			t.Fatalf("got %+v, %v; want the tokens of the response", got, err)
		}
		if f := h.forms["token"]; f.Get("refresh_token") != "refresh-1" || f.Get("client_id") != "client-1" {
			t.Fatalf("form: got %v, want the tokens of client-1", f)
		}
	})
	t.Run("no rotation", func(t *testing.T) {
		h, c := newHub(t)
		h.answer["token"] = status(200, `{"token_type":"bearer","access_token":"a","expires_in":1}`)
		got, err := c.Refresh(t.Context(), "client-1", messages.NewSecret("refresh-1"), nil)
		if err != nil || got.Refresh.Reveal() != "refresh-1" {
			t.Fatalf("got %+v, %v; want the tokens of the response", got, err)
		}
	})
	t.Run("connection refused", func(t *testing.T) {
		h, c := newHub(t)
		h.server.Close()
		_, err := c.Refresh(t.Context(), "client-1", messages.NewSecret("refresh-1"), nil)
		if AsError(err).Retry != RetryLater {
			t.Fatalf("got %v, want %v", err, RetryLater)
		}
	})
}

// O9: Revoke sends the refresh token, WhoAmI the access token; both report a refusal.
func TestRevokeAndWhoAmI(t *testing.T) {
	h, c := newHub(t)
	if err := c.Revoke(t.Context(), "client-1", messages.NewSecret("refresh-1")); err != nil {
		t.Fatal(err)
	}
	if f := h.forms["revoke"]; f.Get("token") != "refresh-1" || f.Get("token_type_hint") != "refresh_token" {
		t.Fatalf("form: got %v, want refresh-1 with its token_type_hint", f)
	}
	u, err := c.WhoAmI(t.Context(), messages.NewSecret("access-1"))
	if err != nil || u.Name != "Ada" {
		t.Fatalf("got %+v, %v; want Ada", u, err)
	}
	if _, err := c.WhoAmI(t.Context(), messages.NewSecret("old")); reasonOf(err) != messages.ReasonSignInNeeded {
		t.Fatalf("got %v, want %v", err, messages.ReasonSignInNeeded)
	}
	h.answer["revoke"] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }
	if err := c.Revoke(t.Context(), "client-1", messages.NewSecret("r")); err == nil {
		t.Fatal("refused revocation: got no error, want one")
	}
}

// Rule 2: no error of a failed exchange shows code, verifier, state or token.
func TestErrorsHoldNoSecret(t *testing.T) {
	h, c := newHub(t)
	h.answer["token"] = func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(400)
		_, _ = io.WriteString(w, `{"error":"invalid_grant","error_description":"code-1"}`)
	}
	var state, verifier string
	_, _, err := signIn(t, h, c, func(a *Attempt) string {
		state, verifier = a.want.state, a.verifier
		_, _, b := h.browse(a.Page().URL)
		return b
	})
	text := fmt.Sprintf("%v %+v", err, err)
	for _, secret := range []string{"code-1", state, verifier} {
		if strings.Contains(text, secret) {
			t.Fatal("got a secret in the error text, want none")
		}
	}
}
