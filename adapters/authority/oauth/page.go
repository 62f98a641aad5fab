package oauth

import (
	_ "embed"
	"io"
	"log"
	"net/http"
)

// The pages are whole and static: nothing of a request is ever in them (O10).
var (
	//go:embed pages/signed-in.html
	signedInPage string
	//go:embed pages/failed.html
	failedPage string
	//go:embed pages/used.html
	usedPage string
)

// maxConnections bounds who may be connected to the redirect listener at once, so that a local flood
// does not take the daemon's descriptors: a browser needs two or three.
const maxConnections = 32

// discard keeps net/http's own words, which may quote a request, out of every log.
var discard = log.New(io.Discard, "", 0)

func secure(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Connection", "close")
}

func page(w http.ResponseWriter, status int, html string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, html)
}
