package browser

import (
	"bufio"
	"crypto/sha1"
	_ "embed"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

//go:embed attack.js
var attackScript string

// attackPage is self-contained, so that it can be put under any address.
var attackPage = "<!doctype html><meta charset=utf-8><title>A page that attacks</title><body><script>" + attackScript + "</script>"

// pageServer serves the attackers' page under every name and returns its port. Under /sandboxed the page has
// an opaque origin, "null".
func pageServer(t *testing.T) int {
	t.Helper()
	return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/sandboxed" {
			w.Header().Set("Content-Security-Policy", "sandbox allow-scripts allow-forms allow-popups")
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, attackPage)
	}))
}

// openDoor is a server without any control that lets every origin read its answers: the front door with all
// controls removed.
type openDoor struct {
	port int

	mu      sync.Mutex
	arrived map[string]int // by attempt; guarded by mu
}

func newOpenDoor(t *testing.T) *openDoor {
	t.Helper()
	d := &openDoor{arrived: map[string]int{}}
	d.port = serve(t, d)
	return d
}

func (d *openDoor) count(attempt string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.arrived[attempt]
}

// pixel is a GIF of one pixel.
var pixel, _ = base64.StdEncoding.DecodeString("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")

func (d *openDoor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Headers", "Authorization")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("Cache-Control", "no-store")
	if r.Method == http.MethodOptions {
		return
	}
	attempt := r.URL.Query().Get("as")
	answer := func(kind, body string) {
		h.Set("Content-Type", kind)
		_, _ = io.WriteString(w, body)
	}
	switch attempt {
	case "image":
		answer("image/gif", string(pixel))
	case "script":
		answer("text/javascript", `window.leaked = "open"`)
	case "EventSource":
		answer("text/event-stream", "data: open\n\n")
	case "form POST", "iframe", "navigation":
		answer("text/html", `<script>(window.opener || window.parent).postMessage("open", "*")</script>`)
	case "WebSocket":
		if err := greet(w, r); err != nil {
			return
		}
	default:
		answer("text/plain", "open")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.arrived[attempt]++
}

// greet accepts a WebSocket, says "open" in one text frame and closes (RFC 6455 4.2.2, 5.2).
func greet(w http.ResponseWriter, r *http.Request) error {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return fmt.Errorf("taking over the connection: %w", err)
	}
	defer conn.Close()
	digest := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, _ = fmt.Fprintf(buffered, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: %s\r\n\r\n\x81\x04open\x88\x00", base64.StdEncoding.EncodeToString(digest[:]))
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	_, _ = bufio.NewReader(conn).ReadByte() // the browser's answer to the closing frame
	return nil
}

// serve serves handler on a port of loopback until the test ends.
func serve(t *testing.T, handler http.Handler) int {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.Listener.Addr().(*net.TCPAddr).Port
}
