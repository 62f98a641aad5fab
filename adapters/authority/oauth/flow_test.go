package oauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"companion/adapters/authority/transport"
	"companion/messages"
)

// signIn runs one attempt with a browser at target, which is the attempt's start page unless given.
func signIn(t *testing.T, h *hub, c *Client, visit func(a *Attempt) string) (Grant, string, error) {
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
			t.Error("the start URL carries the attempt's state")
		}
		var body string
		_, header, body = h.browse(a.Page().URL)
		return body
	})
	if err != nil {
		t.Fatal(err)
	}
	if g.Access.Reveal() != "access-1" || g.Refresh.Reveal() != "refresh-1" || g.ClientID != "client-1" || g.Issuer != h.issuer {
		t.Fatalf("%+v", g)
	}
	if shown != signedInPage {
		t.Fatalf("shown: %s", shown)
	}
	if got := header.Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none'") {
		t.Fatalf("policy %q", got)
	}
	if got := h.forms["token"].Get("client_secret"); got != "" || h.forms["token"].Has("client_secret") {
		t.Fatal("a client secret exists")
	}
	if !strings.Contains(h.redirect, "/callback/") || len(h.redirect) < len("http://127.0.0.1:1/callback/")+43 {
		t.Fatalf("the callback path does not end in a random segment: %s", h.redirect)
	}
}

// O6: with a configured client id nothing is registered, and the callback path is the plain one.
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
		t.Fatalf("%v, %d registrations, %s", err, h.count("register"), h.redirect)
	}
}

// O2: on IPv6 the listener is the literal that was asked for, and the Host is exact there too.
func TestIPv6(t *testing.T) {
	h, c := newHub(t)
	c.config.Loopback = "::1"
	_, shown, err := signIn(t, h, c, func(a *Attempt) string { _, _, b := h.browse(a.Page().URL); return b })
	if err != nil || shown != signedInPage || !strings.HasPrefix(h.redirect, "http://[::1]:") {
		t.Fatalf("%v %s", err, h.redirect)
	}
}

// O2: an address that cannot be bound ends the attempt before anything was registered or shown.
func TestCannotBind(t *testing.T) {
	h, c := newHub(t)
	c.config.Loopback = "192.0.2.1" // documentation, never ours (RFC 5737)
	if _, err := c.Begin(t.Context()); reasonOf(err) != messages.ReasonBindFailed || h.count("register") != 0 {
		t.Fatalf("%v, %d registrations", err, h.count("register"))
	}
}

// T13: a hostile callback client, and a hostile server at the front channel (O3, O4, O10).
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
				t.Fatalf("shown: %s", shown)
			}
			if strings.Contains(err.Error(), "script") || strings.Contains(err.Error(), "free text") {
				t.Fatalf("free text from the server: %v", err)
			}
			if r.want != messages.ReasonTokenExchangeFailed && h.count("token") != 0 {
				t.Fatal("a refused callback reached the token endpoint")
			}
		})
	}
}

// strays are answers on the callback path that do not carry the attempt's state.
func strays(a *Attempt) map[messages.Reason]url.Values {
	return map[messages.Reason]url.Values{
		messages.ReasonStateMismatch:            {"code": {"c"}, "state": {"x"}, "iss": {a.want.issuer}},
		messages.ReasonStateMissing:             {"code": {"c"}, "iss": {a.want.issuer}},
		messages.ReasonAuthorizationServerError: {"error": {"access_denied"}, "state": {"x"}, "iss": {a.want.issuer}},
	}
}

// O3, O4, T13: an answer without the attempt's state does not end the attempt, is told so, and the user's own answer still
// works. Without one, the time-out says what was wrong with the stray.
func TestStrayCallbackEndsNothing(t *testing.T) {
	h, c := newHub(t)
	_, shown, err := signIn(t, h, c, func(a *Attempt) string {
		for reason, query := range strays(a) {
			for range 3 {
				if status, _, body := h.browse(a.redirectURI + "?" + query.Encode()); status != http.StatusBadRequest || body != strayPage {
					t.Errorf("%s: status %d, page %q, want 400 and the stray page", reason, status, body)
				}
			}
		}
		_, _, body := h.browse(a.Page().URL)
		return body
	})
	if err != nil || shown != signedInPage {
		t.Fatalf("the user's own sign-in after strays: %v, page %q", err, shown)
	}
	if h.count("token") != 1 {
		t.Errorf("%d token requests, want 1", h.count("token"))
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

// O2: a preview or a prefetch that opens the start page does not spend it; only the callback does.
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
		t.Fatalf("the user's sign-in after the previews: %v, page %q", err, shown)
	}
}

// O2: idle connections of another process, however many, do not keep the user's browser out, and requests without the state
// do not either.
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
		t.Fatalf("among %d idle connections and %d hostile requests: %v, page %q", crowd, crowd, err, shown)
	}
}

// O2: a connection that the browser opened to spare time does not delay the end of the attempt.
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
	h.browse("http://" + a.host + "/") // the listener has accepted the spare connection by now
	shown := make(chan string, 1)
	go func() { _, _, body := h.browse(a.Page().URL); shown <- body }()
	if _, err := a.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	a.Close(true)
	if took := time.Since(began); took >= showWithin {
		t.Errorf("Close waited %v for a connection that says nothing", took)
	}
	if body := <-shown; body != signedInPage {
		t.Errorf("the browser got %q, want the signed-in page whole", body)
	}
	if _, err := spare.Read(make([]byte, 1)); err == nil {
		t.Error("the spare connection is still open")
	}
}

// O7, O8, O9: the status of an answer decides before its body. A body that is too long or cut off does not turn "later" or
// "no" into a lost answer, and a revocation that was accepted is one.
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
				t.Errorf("refresh, %d with a %s body: retry %d, over %v, want %d (%v)", status, name, e.Retry, e.SessionOver(), want, errors.Unwrap(err))
			}
			h.server.CloseClientConnections()
		}
		h, c := newHub(t)
		h.server.Config.ErrorLog = discard
		h.answer["revoke"] = func(w http.ResponseWriter, _ *http.Request) { body(w, 200) }
		if err := c.Revoke(t.Context(), "client-1", messages.NewSecret("refresh-1")); err != nil {
			t.Errorf("revocation, 200 with a %s body: %v", name, err)
		}
	}
}

// O5: an answer without scope means what was asked for at first, and no change at a refresh (RFC 6749 sections 5.1 and 6).
func TestScope(t *testing.T) {
	h, c := newHub(t)
	g, _, err := signIn(t, h, c, func(a *Attempt) string { _, _, b := h.browse(a.Page().URL); return b })
	if err != nil || g.Scope != c.config.Scope {
		t.Errorf("first answer without scope: %q, %v, want %q", g.Scope, err, c.config.Scope)
	}
	for body, want := range map[string]string{
		`{"token_type":"bearer","access_token":"a","expires_in":1}`:                      "",
		`{"token_type":"bearer","access_token":"a","expires_in":1,"scope":"vault:read"}`: "vault:read",
	} {
		h.answer["token"] = func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
		got, err := c.Refresh(t.Context(), "client-1", messages.NewSecret("refresh-1"), nil)
		if err != nil || got.Scope != want {
			t.Errorf("refresh answered %s: scope %q, %v, want %q", body, got.Scope, err, want)
		}
	}
}

// O8: the note comes after everything that can fail before sending, and a note that fails stops the refresh.
func TestNoteBeforeSending(t *testing.T) {
	h, c := newHub(t)
	noted := false
	h.answer["token"] = func(w http.ResponseWriter, _ *http.Request) {
		if !noted {
			t.Error("the token was sent before the note")
		}
		_, _ = io.WriteString(w, `{"token_type":"bearer","access_token":"a","expires_in":1}`)
	}
	if _, err := c.Refresh(t.Context(), "client-1", messages.NewSecret("r"), func() error { noted = true; return nil }); err != nil {
		t.Fatal(err)
	}
	_, err := c.Refresh(t.Context(), "client-1", messages.NewSecret("r"), func() error { return errors.New("disk full") })
	if AsError(err).Retry != RetryLater || h.count("token") != 1 {
		t.Errorf("a note that fails: %v, %d token requests, want retry later and 1", err, h.count("token"))
	}
	h.answer["oauth-authorization-server"] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }
	noted = false
	if _, err := c.Refresh(t.Context(), "client-1", messages.NewSecret("r"), func() error { noted = true; return nil }); err == nil || noted {
		t.Errorf("a hub that cannot be reached: %v, noted %v, want an error and no note", err, noted)
	}
}

// O4: iss is required when the metadata announces it or the hub is first-party; where it is there, it
// must be right.
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
			t.Errorf("%+v: got %s", r, got)
		}
	}
}

// O2, O3: what is no callback does not end the attempt; the state is spent by one callback; the
// listener is gone afterwards.
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
			t.Fatalf("%s: %d %s", strings.TrimPrefix(target, base), status, body)
		}
	}
	resp, err := http.Post(a.redirectURI+"?"+good.Encode(), "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 405 {
		t.Fatalf("POST: %d", resp.StatusCode)
	}
	first := make(chan string, 1)
	go func() { _, _, body := h.browse(a.Page().URL); first <- body }()
	if _, err := a.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, body := h.browse(a.redirectURI + "?" + good.Encode()); body != usedPage {
		t.Fatalf("a second callback got %s", body)
	}
	if _, _, body := h.browse(a.Page().URL); body != usedPage {
		t.Fatalf("a second start got %s", body)
	}
	a.Close(true)
	if body := <-first; body != signedInPage {
		t.Fatalf("got %v, want %v", body, signedInPage)
	}
	if status, _, _ := h.browse(a.redirectURI); status != 0 {
		t.Fatal("the listener is still there")
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
		t.Fatal("the listener is still there")
	}
}

// T13: a hostile server at the back channel: every answer is checked, nothing is followed (O1, O6, O7).
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
		"metadata fails":         {"oauth-authorization-server", broken, messages.ReasonMetadataInvalid},
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
				t.Fatal("tokens from a refused answer")
			}
			if h.count("token") > 1 {
				t.Fatal("the code was sent twice")
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
	if _, err := c.Begin(t.Context()); reasonOf(err) != messages.ReasonMetadataInvalid {
		t.Fatalf("got %v, want %v", err, messages.ReasonMetadataInvalid)
	}
	if h.count("oauth-authorization-server") != 0 {
		t.Fatal("the request was sent")
	}
}

// O8: what each failed refresh means for the next.
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
				t.Fatalf("%+v", err)
			}
			if h.count("token") > 1 {
				t.Fatal("the refresh token was sent twice")
			}
		})
	}
	t.Run("rotation", func(t *testing.T) {
		h, c := newHub(t)
		got, err := c.Refresh(t.Context(), "client-1", messages.NewSecret("refresh-1"), nil)
		if err != nil || got.Access.Reveal() != "access-2" || got.Refresh.Reveal() != "refresh-2" {
			t.Fatalf("%+v %v", got, err)
		}
		if f := h.forms["token"]; f.Get("refresh_token") != "refresh-1" || f.Get("client_id") != "client-1" {
			t.Fatalf("%v", f)
		}
	})
	t.Run("no rotation", func(t *testing.T) {
		h, c := newHub(t)
		h.answer["token"] = status(200, `{"token_type":"bearer","access_token":"a","expires_in":1}`)
		got, err := c.Refresh(t.Context(), "client-1", messages.NewSecret("refresh-1"), nil)
		if err != nil || got.Refresh.Reveal() != "refresh-1" {
			t.Fatalf("%+v %v", got, err)
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

// O9.
func TestRevokeAndWhoAmI(t *testing.T) {
	h, c := newHub(t)
	if err := c.Revoke(t.Context(), "client-1", messages.NewSecret("refresh-1")); err != nil {
		t.Fatal(err)
	}
	if f := h.forms["revoke"]; f.Get("token") != "refresh-1" || f.Get("token_type_hint") != "refresh_token" {
		t.Fatalf("%v", f)
	}
	u, err := c.WhoAmI(t.Context(), messages.NewSecret("access-1"))
	if err != nil || u.Name != "Ada" {
		t.Fatalf("%+v %v", u, err)
	}
	if _, err := c.WhoAmI(t.Context(), messages.NewSecret("old")); reasonOf(err) != messages.ReasonSignInNeeded {
		t.Fatalf("got %v, want %v", err, messages.ReasonSignInNeeded)
	}
	h.answer["revoke"] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }
	if err := c.Revoke(t.Context(), "client-1", messages.NewSecret("r")); err == nil {
		t.Fatal("a refused revocation looks like success")
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
			t.Fatal("a secret in the error text")
		}
	}
}
