package oauth

import (
	_ "embed"
	"io"
	"log"
	"net/http"
	"strconv"
)

// The pages are static; they contain no data of a request (O10).
var (
	//go:embed pages/signed-in.html
	signedInPage string
	//go:embed pages/failed.html
	failedPage string
	//go:embed pages/used.html
	usedPage string
	//go:embed pages/stray.html
	strayPage string
	//go:embed pages/other-user.html
	foreignPage string
)

// discard drops the messages of net/http, which may quote a request.
var discard = log.New(io.Discard, "", 0)

func secure(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Connection", "close")
}

// page writes a page with its Content-Length and flushes it before it returns, so that the browser gets all of it although the
// listener closes right after.
func page(w http.ResponseWriter, status int, html string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(html)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, html)
	_ = http.NewResponseController(w).Flush()
}
