package signin

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"strings"

	"github.com/ory/fosite"
)

//go:embed page.html
var pageSource string

//go:embed page.css
var pageStyle string

var page = template.Must(template.New("page").Parse(pageSource))

// formCookie binds a form to the browser that requested it; __Host- restricts it to this origin.
const formCookie = "__Host-devhub-form"

type pageData struct {
	Style    template.CSS
	Error    string
	Problem  string // instead of the form
	Device   bool   // the form asks for a user code (RFC 8628)
	UserCode string
	Done     bool // the code was confirmed
	Scopes   []string
	Users    []User
	FormSeal string
}

// signIn checks that the form was made by this server for this browser and this request, and then the password. With a
// wrong password it shows the page again.
func (s *Server) signIn(w http.ResponseWriter, r *http.Request, request fosite.AuthorizeRequester) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := r.ParseForm(); err != nil {
		showError(w, http.StatusBadRequest, "invalid_request")
		return
	}
	cookie, err := r.Cookie(formCookie)
	if err != nil || !hmac.Equal([]byte(s.seal(cookie.Value, r)), []byte(r.PostForm.Get("seal"))) {
		s.showPage(w, r, request, "This form was not made for this browser. Try again.")
		return
	}
	user, ok := find(s.users, strings.TrimSpace(r.PostForm.Get("user")))
	if !user.check(r.PostForm.Get("password")) || !ok {
		s.showPage(w, r, request, "User name or password is wrong.")
		return
	}
	s.approve(r.Context(), w, request, user)
}

// seal binds the form to the browser's cookie and to the whole authorization request.
func (s *Server) seal(cookie string, r *http.Request) string {
	mac := hmac.New(sha256.New, s.secret)
	mac.Write([]byte("form\x00" + cookie + "\x00" + r.URL.RawQuery))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func (s *Server) showPage(w http.ResponseWriter, r *http.Request, request fosite.AuthorizeRequester, problem string) {
	value := rand.Text()
	http.SetCookie(w, &http.Cookie{
		Name: formCookie, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
	status := http.StatusOK
	if problem != "" {
		status = http.StatusUnauthorized
	}
	render(w, status, redirectSource(request.GetRedirectURI()), pageData{
		Error: problem, Scopes: request.GetRequestedScopes(), Users: s.users, FormSeal: s.seal(value, r),
	})
}

func showError(w http.ResponseWriter, status int, code string) {
	render(w, status, "", pageData{Problem: code})
}

func render(w http.ResponseWriter, status int, formTarget string, data pageData) {
	data.Style = template.CSS(pageStyle)
	digest := sha256.Sum256([]byte(pageStyle))
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'sha256-"+
		base64.StdEncoding.EncodeToString(digest[:])+"'; form-action 'self' "+formTarget+
		"; frame-ancestors 'none'; base-uri 'none'")
	w.WriteHeader(status)
	_ = page.Execute(w, data)
}
