package signin

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/ory/fosite"

	"companion/cmd/devhub/fault"
)

// Authorize handles the authorization endpoint: GET shows the sign-in page, or redirects at once under auto-approval; POST
// handles the page's form.
func (s *Server) Authorize(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	request, err := s.authorizeRequest(ctx, r)
	if err != nil {
		s.refuse(w, request, err)
		return
	}
	if s.Faults.Has(fault.Denied) {
		s.refuse(w, request, fosite.ErrAccessDenied)
		return
	}
	if s.AutoApprove != "" {
		user, _ := find(s.users, s.AutoApprove)
		s.approve(ctx, w, request, user)
		return
	}
	if r.Method != http.MethodPost {
		s.showPage(w, r, request, "")
		return
	}
	s.signIn(w, r, request)
}

// authorizeRequest checks only the query: the form of the sign-in page cannot change it.
func (s *Server) authorizeRequest(ctx context.Context, r *http.Request) (fosite.AuthorizeRequester, error) {
	query := r.Clone(ctx)
	query.Method, query.Body, query.Form, query.PostForm = http.MethodGet, http.NoBody, nil, nil
	request, err := s.provider.NewAuthorizeRequest(ctx, query)
	if err != nil {
		return request, err
	}
	form := request.GetRequestForm()
	switch {
	case repeated(form):
		return request, fosite.ErrInvalidRequest.WithHint("A parameter is there twice.")
	case !loopbackRedirect(form.Get("redirect_uri")):
		return request, fosite.ErrInvalidRequest.WithHint("The redirect URI must be there, on a loopback literal.")
	case form.Get("code_challenge") == "" || form.Get("code_challenge_method") != "S256":
		return request, fosite.ErrInvalidRequest.WithHint("PKCE with S256 is required.")
	case len(request.GetRequestedScopes()) == 0:
		return request, fosite.ErrInvalidScope.WithHint("The scope must be said.")
	}
	return request, nil
}

// approve answers with a code for the user. It grants only scopes of the user's role.
func (s *Server) approve(ctx context.Context, w http.ResponseWriter, request fosite.AuthorizeRequester, user User) {
	for _, scope := range request.GetRequestedScopes() {
		if slices.Contains(scopes(user.Role), scope) {
			request.GrantScope(scope)
		}
	}
	session := &fosite.DefaultSession{Username: user.ID, Subject: user.Sub}
	response, err := s.provider.NewAuthorizeResponse(ctx, request, session)
	if err != nil {
		s.refuse(w, request, err)
		return
	}
	s.spoil(ctx, request, response)
	if s.Faults.Has(fault.Previews) {
		s.preview(request.GetRequestForm().Get("redirect_uri"))
	}
	s.provider.WriteAuthorizeResponse(ctx, w, request, response)
}

// spoil adds the issuer (RFC 9207) and simulates the faults of the redirect.
func (s *Server) spoil(ctx context.Context, request fosite.AuthorizeRequester, response fosite.AuthorizeResponder) {
	if iss, there := s.iss(); there {
		response.AddParameter("iss", iss)
	}
	parameters := response.GetParameters()
	if s.Faults.Has(fault.WrongState) {
		parameters.Set("state", "another-"+request.GetState())
	}
	if s.Faults.Has(fault.ReusedCode) {
		signature := s.codes.AuthorizeCodeSignature(ctx, response.GetCode())
		_ = s.store.InvalidateAuthorizeCodeSession(ctx, signature)
	}
}

func (s *Server) iss() (iss string, there bool) {
	switch {
	case s.Faults.Has(fault.NoISS):
		return "", false
	case s.Faults.Has(fault.WrongISS):
		return s.Issuer + "/other", true
	}
	return s.Issuer, true
}

// refuse redirects with the error if the redirect URI can be trusted, and shows a page otherwise (RFC 6749 4.1.2.1).
// fosite's own answer has no iss.
func (s *Server) refuse(w http.ResponseWriter, request fosite.AuthorizeRequester, err error) {
	problem := fosite.ErrorToRFC6749Error(err)
	if request == nil || !request.IsRedirectURIValid() || !loopbackRedirect(request.GetRequestForm().Get("redirect_uri")) {
		showError(w, problem.CodeField, problem.ErrorField)
		return
	}
	target := *request.GetRedirectURI()
	query := target.Query()
	for key, values := range problem.ToValues() {
		query[key] = values
	}
	if state := request.GetState(); state != "" {
		query.Set("state", state)
	}
	if iss, there := s.iss(); there {
		query.Set("iss", iss)
	}
	target.RawQuery, target.Fragment = query.Encode(), ""
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Location", target.String())
	w.WriteHeader(http.StatusSeeOther)
}

// redirectSource is the redirect's origin as a CSP source. A browser applies form-action to the redirect that follows the
// form, and CSP does not allow IPv6 literals.
func redirectSource(u *url.URL) string {
	if strings.Contains(u.Host, "[") {
		return "http:"
	}
	return "http://" + u.Host
}
