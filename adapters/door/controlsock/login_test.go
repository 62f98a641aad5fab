package controlsock

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"companion/messages"
)

// pipes is a listener of connections within the process, which a synctest bubble can wait for.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours, nil
}

// O11: a sign-in may take as long as the hub's device code lives: the daemon ends it, not the client.
func TestLongLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := &pipes{conns: make(chan net.Conn, 8), done: make(chan struct{})}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v1/login" {
				_, _ = io.WriteString(w, "{}")
				return
			}
			_, _ = io.WriteString(w, `{"page":{"url":"https://hub.example/device","until":"2026-01-01T00:00:00Z"}}`+"\n")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(59 * time.Minute)
			_, _ = io.WriteString(w, `{"result":{"reason":"ok","user":{"sub":"s"}}}`+"\n")
		})}
		served := make(chan error, 1)
		go func() { served <- server.Serve(listener) }()
		transport := &http.Transport{DialContext: listener.dial, DisableKeepAlives: true}
		c := &Client{http: &http.Client{Transport: transport}, answer: statusWithin, probeEvery: probeEvery}
		result, err := c.Login(t.Context(), true, func(messages.LoginPage) {})
		if err != nil || result.Reason != messages.ReasonOK {
			t.Errorf("a sign-in of 59 minutes: got %+v, %v; want ok", result, err)
		}
		close(listener.done)
		_ = server.Close()
		<-served
	})
}
