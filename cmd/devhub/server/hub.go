package server

import (
	"bytes"
	"io"
	"net/http"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"companion/cmd/devhub/catalogue"
	"companion/cmd/devhub/fault"
	"companion/cmd/devhub/place"
)

const (
	manifestPath  = "/api/v1/manifest/"
	wellKnownPath = "/.well-known/oauth-authorization-server"
)

// hubRoutes are the endpoints of hub.md. The metadata is at both paths: appended to the issuer, as hub.md says, and
// inserted before its path, as RFC 8414 says.
func (h *Hub) hubRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+place.IssuerPath+wellKnownPath, h.signin.Metadata)
	mux.HandleFunc("GET "+wellKnownPath+place.IssuerPath, h.signin.Metadata)
	mux.HandleFunc("POST "+place.IssuerPath+"/register", h.signin.Register)
	mux.HandleFunc("GET "+place.IssuerPath+"/authorize", h.signin.Authorize)
	mux.HandleFunc("POST "+place.IssuerPath+"/authorize", h.signin.Authorize)
	mux.HandleFunc("POST "+place.IssuerPath+"/token", h.signin.Token)
	mux.HandleFunc("POST "+place.IssuerPath+"/revoke", h.signin.Revoke)
	mux.HandleFunc("POST "+place.IssuerPath+"/device", h.signin.DeviceAuthorization)
	mux.HandleFunc("GET "+place.IssuerPath+"/verify", h.signin.Verify)
	mux.HandleFunc("POST "+place.IssuerPath+"/verify", h.signin.Verify)
	mux.HandleFunc("GET /api/v1/auth/session", h.signin.Session)
	mux.HandleFunc("GET "+manifestPath+"{file}", h.manifest)
	mux.HandleFunc("GET /artifacts/{digest}", h.elsewhere)
	var served atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lucky := served.Add(1)%3 == 0
		if !lucky && h.faults.Has(fault.Restarts) {
			panic(http.ErrAbortHandler)
		}
		if !lucky && h.faults.Has(fault.Storm) {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, strings.Repeat("this hub simulates token-storm\n", 10_000))
			return
		}
		if h.faults.Has(fault.ServerError) {
			http.Error(w, "this hub simulates server-error", http.StatusServiceUnavailable)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// manifest serves the signed metadata. It is public and ignores tokens.
func (h *Hub) manifest(w http.ResponseWriter, r *http.Request) {
	switch {
	case h.faults.Has(fault.ManifestFromArtifact):
		http.Redirect(w, r, h.place.ArtifactURL()+r.URL.Path, http.StatusFound)
	case h.faults.Has(fault.RefusedToken):
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		http.Error(w, "this hub simulates refused-token", http.StatusUnauthorized)
	case h.faults.Has(fault.WebPage):
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, "<!DOCTYPE html><title>Sign in to this network</title>")
	default:
		h.serveManifest(w, r)
	}
}

func (h *Hub) serveManifest(w http.ResponseWriter, r *http.Request) {
	name := path.Base(r.PathValue("file"))
	if !strings.HasSuffix(name, ".json") {
		http.NotFound(w, r)
		return
	}
	data, err := h.metadata(name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(data))
}

// metadata returns one metadata file as the faults change it. No fault changes the root, because the client pins it.
func (h *Hub) metadata(name string) ([]byte, error) {
	if strings.HasSuffix(name, "root.json") {
		return h.catalogue.ManifestFile(name)
	}
	data, err := h.twisted(name)
	switch {
	case err != nil:
		return nil, err
	case h.faults.Has(fault.WrongSignature):
		return breakSignature(data), nil
	case h.faults.Has(fault.TruncatedManifest):
		return data[:len(data)/2], nil
	}
	return data, nil
}

func (h *Hub) twisted(name string) ([]byte, error) {
	t := catalogue.Twist{
		Expired:     h.faults.Has(fault.ExpiredManifest),
		Older:       h.faults.Has(fault.RolledBackManifest),
		WrongLength: h.faults.Has(fault.WrongLength),
		WrongDigest: h.faults.Has(fault.WrongDigest),
		Outside:     h.faults.Has(fault.OutsideOrigin),
	}
	switch {
	case h.faults.Has(fault.SameHost):
		t.Base = h.place.HubURL()
	case h.faults.Has(fault.PlainHTTP):
		t.Base = "http" + strings.TrimPrefix(h.place.ArtifactURL(), "https")
	}
	if t == (catalogue.Twist{}) {
		return h.catalogue.ManifestFile(name)
	}
	files, err := h.catalogue.Metadata(t)
	if err != nil {
		return nil, err
	}
	data, ok := files[name]
	if !ok {
		return nil, errNoFile
	}
	return data, nil
}

// breakSignature changes the first digit of the first signature.
func breakSignature(data []byte) []byte {
	const key = `"sig": "`
	broken := bytes.Clone(data)
	at := bytes.Index(broken, []byte(key)) + len(key)
	if broken[at] == '0' {
		broken[at] = '1'
	} else {
		broken[at] = '0'
	}
	return broken
}
