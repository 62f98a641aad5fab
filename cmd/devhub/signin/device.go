package signin

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/handler/oauth2"

	"companion/cmd/devhub/fault"
)

// Device authorization, RFC 8628. This version of fosite does not implement it; fosite issues the tokens.
const (
	deviceGrant    = "urn:ietf:params:oauth:grant-type:device_code"
	deviceLife     = 10 * time.Minute
	deviceInterval = 1 // second; a development hub has one client machine
	// userCodeLetters has no vowels and no look-alikes (RFC 8628 section 6.1): eight of them are 34 bits.
	userCodeLetters = "BCDFGHJKLMNPQRSTVWXZ"
)

// device is one authorization in progress.
type device struct {
	client   string
	scopes   []string
	userCode string
	expires  time.Time
	polled   time.Time
	user     string // the user who has confirmed; empty: not confirmed
	denied   bool
}

// devices are the authorizations in progress, by the digest of the device code. They are in memory, so a restart ends
// them.
type devices struct {
	mu  sync.Mutex
	all map[string]*device
}

func deviceKey(code string) string {
	sum := sha256.Sum256([]byte(code))
	return hex.EncodeToString(sum[:])
}

// DeviceAuthorization handles the device authorization endpoint (RFC 8628 section 3.1).
func (s *Server) DeviceAuthorization(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := r.ParseForm(); err != nil || repeated(r.PostForm) {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": "invalid_request"})
		return
	}
	client, err := s.store.GetClient(r.Context(), r.PostForm.Get("client_id"))
	if err != nil || !client.GetGrantTypes().Has(deviceGrant) {
		writeJSON(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client"})
		return
	}
	wanted := strings.Fields(r.PostForm.Get("scope"))
	if len(wanted) == 0 || slices.ContainsFunc(wanted, func(scope string) bool { return !client.GetScopes().Has(scope) }) {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": "invalid_scope"})
		return
	}
	code, userCode := rand.Text()+rand.Text(), newUserCode()
	s.devices.mu.Lock()
	for key, d := range s.devices.all {
		if time.Now().After(d.expires) {
			delete(s.devices.all, key)
		}
	}
	s.devices.all[deviceKey(code)] = &device{client: client.GetID(), scopes: wanted, userCode: userCode, expires: time.Now().Add(deviceLife)}
	s.devices.mu.Unlock()
	page := s.Issuer + "/verify"
	writeJSON(w, http.StatusOK, map[string]any{
		"device_code": code, "user_code": userCode, "verification_uri": page,
		"verification_uri_complete": page + "?" + url.Values{"user_code": {userCode}}.Encode(),
		"expires_in":                int(deviceLife.Seconds()), "interval": deviceInterval,
	})
}

func newUserCode() string {
	var code strings.Builder
	for _, b := range []byte(rand.Text() + rand.Text()) {
		// rand.Text has 32 letters; letters outside userCodeLetters are skipped.
		if strings.IndexByte(userCodeLetters, b) >= 0 {
			code.WriteByte(b)
		}
		if code.Len() == 4 {
			code.WriteByte('-')
		}
		if code.Len() == 9 {
			return code.String()
		}
	}
	return newUserCode()
}

// byUserCode returns the authorization of the code that the user typed.
func (d *devices) byUserCode(typed string) *device {
	plain := func(code string) string { return strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(code)) }
	for _, one := range d.all {
		if plain(one.userCode) == plain(typed) && time.Now().Before(one.expires) && one.user == "" && !one.denied {
			return one
		}
	}
	return nil
}

// Verify handles the verification page (RFC 8628 section 3.3): a form for the code and the password. Under auto-approval
// the code alone confirms.
func (s *Server) Verify(w http.ResponseWriter, r *http.Request) {
	show := func(status int, data pageData) {
		value := rand.Text()
		http.SetCookie(w, &http.Cookie{
			Name: formCookie, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
		})
		data.Users, data.FormSeal, data.Device = s.users, s.seal(value, r), true
		render(w, status, "", data)
	}
	typed := r.URL.Query().Get("user_code")
	user := User{}
	switch {
	case s.AutoApprove != "" && typed != "":
		user, _ = find(s.users, s.AutoApprove)
	case r.Method != http.MethodPost:
		show(http.StatusOK, pageData{UserCode: typed})
		return
	default:
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if err := r.ParseForm(); err != nil {
			showError(w, http.StatusBadRequest, "invalid_request")
			return
		}
		typed = r.PostForm.Get("user_code")
		cookie, err := r.Cookie(formCookie)
		if err != nil || !hmac.Equal([]byte(s.seal(cookie.Value, r)), []byte(r.PostForm.Get("seal"))) {
			show(http.StatusUnauthorized, pageData{UserCode: typed, Error: "This form was not made for this browser. Try again."})
			return
		}
		found, ok := find(s.users, strings.TrimSpace(r.PostForm.Get("user")))
		if !found.check(r.PostForm.Get("password")) || !ok {
			show(http.StatusUnauthorized, pageData{UserCode: typed, Error: "User name or password is wrong."})
			return
		}
		user = found
	}
	s.devices.mu.Lock()
	d := s.devices.byUserCode(typed)
	if d != nil {
		d.user, d.denied = user.ID, s.Faults.Has(fault.Denied)
	}
	s.devices.mu.Unlock()
	if d == nil {
		show(http.StatusNotFound, pageData{UserCode: typed, Error: "This code is not known here, or has expired."})
		return
	}
	render(w, http.StatusOK, "", pageData{Done: true})
}

// deviceHandler handles device codes at the token endpoint (RFC 8628 sections 3.4 and 3.5).
type deviceHandler struct {
	s        *Server
	strategy oauth2.CoreStrategy
}

func (deviceHandler) CanSkipClientAuth(context.Context, fosite.AccessRequester) bool { return false }

func (deviceHandler) CanHandleTokenEndpointRequest(_ context.Context, r fosite.AccessRequester) bool {
	return r.GetGrantTypes().ExactOne(deviceGrant)
}

func deviceError(code string) error {
	return &fosite.RFC6749Error{ErrorField: code, CodeField: http.StatusBadRequest, DescriptionField: "The device authorization is not complete."}
}

func (h deviceHandler) HandleTokenEndpointRequest(ctx context.Context, r fosite.AccessRequester) error {
	if !h.CanHandleTokenEndpointRequest(ctx, r) {
		return fosite.ErrUnknownRequest
	}
	if !r.GetClient().GetGrantTypes().Has(deviceGrant) {
		return fosite.ErrUnauthorizedClient
	}
	h.s.devices.mu.Lock()
	defer h.s.devices.mu.Unlock()
	key := deviceKey(r.GetRequestForm().Get("device_code"))
	d, ok := h.s.devices.all[key]
	if !ok || d.client != r.GetClient().GetID() {
		return fosite.ErrInvalidGrant
	}
	now := time.Now()
	early := now.Sub(d.polled) < deviceInterval*time.Second*9/10
	d.polled = now
	switch {
	case now.After(d.expires):
		delete(h.s.devices.all, key)
		return deviceError("expired_token")
	case d.denied:
		delete(h.s.devices.all, key)
		return fosite.ErrAccessDenied
	case d.user == "" && early:
		return deviceError("slow_down")
	case d.user == "":
		return deviceError("authorization_pending")
	}
	delete(h.s.devices.all, key)
	user, _ := find(h.s.users, d.user)
	r.SetRequestedScopes(d.scopes)
	for _, scope := range d.scopes {
		if slices.Contains(scopes(user.Role), scope) {
			r.GrantScope(scope)
		}
	}
	session, _ := r.GetSession().(*fosite.DefaultSession)
	session.Username, session.Subject = user.ID, user.Sub
	session.SetExpiresAt(fosite.AccessToken, now.UTC().Add(accessLife))
	session.SetExpiresAt(fosite.RefreshToken, now.UTC().Add(refreshLife))
	return nil
}

func (h deviceHandler) PopulateTokenEndpointResponse(ctx context.Context, r fosite.AccessRequester, w fosite.AccessResponder) error {
	if !h.CanHandleTokenEndpointRequest(ctx, r) {
		return fosite.ErrUnknownRequest
	}
	access, accessSignature, err := h.strategy.GenerateAccessToken(ctx, r)
	if err != nil {
		return err
	}
	refresh, refreshSignature, err := h.strategy.GenerateRefreshToken(ctx, r)
	if err != nil {
		return err
	}
	if err := h.s.store.CreateAccessTokenSession(ctx, accessSignature, r.Sanitize(nil)); err != nil {
		return err
	}
	if err := h.s.store.CreateRefreshTokenSession(ctx, refreshSignature, accessSignature, r.Sanitize(nil)); err != nil {
		return err
	}
	w.SetAccessToken(access)
	w.SetTokenType("bearer")
	w.SetExpiresIn(accessLife)
	w.SetScopes(r.GetGrantedScopes())
	w.SetExtra("refresh_token", refresh)
	return nil
}
