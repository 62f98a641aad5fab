// Package server serves the development hub over HTTPS: the hub under one host name and the artifacts under another, both
// with certificates of the private authority and only on loopback.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"go.uber.org/zap"

	"companion/cmd/devhub/catalogue"
	"companion/cmd/devhub/fault"
	"companion/cmd/devhub/place"
	"companion/cmd/devhub/signin"
)

const (
	// signAgain is much less than the shortest lifetime of signed metadata.
	signAgain     = 6 * time.Hour
	shutdownGrace = 3 * time.Second
)

// Options configure the hub. A port of zero means the stored port of the directory.
type Options struct {
	Port, ArtifactPort int
	AutoApprove        string
	Faults             []fault.Name
	Log                *zap.Logger
}

// Hub is a hub that listens and does not serve yet.
type Hub struct {
	place     *place.Place
	catalogue *catalogue.Catalogue
	signin    *signin.Server
	faults    fault.Set
	log       *zap.Logger
	hub       []net.Listener
	artifacts []net.Listener
}

// New opens both listeners, keeps their ports in the directory, and signs the manifest for them.
func New(p *place.Place, o Options) (*Hub, error) {
	h := &Hub{place: p, log: o.Log, faults: fault.NewSet(o.Faults, p.Path("faults"))}
	var err error
	if h.hub, err = listen(place.HubHost, o.Port, p.HubPort()); err != nil {
		return nil, err
	}
	if h.artifacts, err = listen(place.ArtifactHost, o.ArtifactPort, p.ArtifactPort()); err != nil {
		h.close()
		return nil, err
	}
	if err := h.prepare(o); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

func (h *Hub) prepare(o Options) error {
	err := h.place.KeepPorts(port(h.hub[0]), port(h.artifacts[0]))
	if err != nil {
		return err
	}
	if h.catalogue, err = catalogue.Open(h.place); err != nil {
		return err
	}
	if err := h.catalogue.Sign(); err != nil {
		return err
	}
	h.signin, err = signin.New(signin.Options{
		Issuer: h.place.Issuer(), StateFile: h.place.Path("signin.json"), UsersFile: h.place.Path("users.json"),
		AutoApprove: o.AutoApprove, Faults: h.faults,
		Reused: func() { h.log.Warn("refresh token reused") },
	})
	return err
}

// Users are the users who can sign in.
func (h *Hub) Users() []signin.User { return h.signin.Users() }

// Serve answers until ctx ends, then lets running requests finish for a moment.
func (h *Hub) Serve(ctx context.Context) error {
	hub, err := h.server(place.HubHost, h.hubRoutes())
	if err != nil {
		return err
	}
	artifacts, err := h.server(place.ArtifactHost, h.artifactRoutes())
	if err != nil {
		return err
	}
	ended := make(chan error)
	running := 0
	start := func(s *http.Server, listeners []net.Listener) {
		for _, l := range listeners {
			running++
			go func() { ended <- s.ServeTLS(l, "", "") }()
		}
	}
	start(hub, h.hub)
	start(artifacts, h.artifacts)
	var failed error
	for renew := time.NewTicker(signAgain); running > 0; {
		select {
		case <-ctx.Done():
			renew.Stop()
			stop(hub, artifacts)
			ctx = context.Background() // only the ends of the servers are still received
		case <-renew.C:
			if err := h.catalogue.Sign(); err != nil {
				h.log.Error("manifest not renewed", zap.Error(err))
			}
		case err := <-ended:
			running--
			if !errors.Is(err, http.ErrServerClosed) {
				failed = errors.Join(failed, err)
				stop(hub, artifacts)
			}
		}
	}
	return failed
}

func stop(servers ...*http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	for _, s := range servers {
		if s.Shutdown(ctx) != nil {
			s.Close()
		}
	}
}

func (h *Hub) server(host string, routes http.Handler) (*http.Server, error) {
	cert, err := h.place.ServerCertificate(host)
	if err != nil {
		return nil, err
	}
	return &http.Server{
		Handler:           h.logged(host, http.NewCrossOriginProtection().Handler(routes)),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          zap.NewStdLog(h.log.Named(host)),
	}, nil
}

// logged writes one line per request. It names the route and not the target: queries contain codes and states, and paths
// contain digests. Range and bytes show what a resumed download fetches.
func (h *Hub) logged(host string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began, span := time.Now(), r.Header.Get("Range")
		counted := &countingWriter{ResponseWriter: w}
		defer func() {
			h.log.Info("request served", zap.String("host", host), zap.String("method", r.Method), zap.String("route", r.Pattern),
				zap.String("range", span), zap.Int64("bytes", counted.sent), zap.Duration("took", time.Since(began)))
		}()
		next.ServeHTTP(counted, r)
	})
}

// countingWriter counts the bytes of a body that were written to the connection.
type countingWriter struct {
	http.ResponseWriter
	sent int64
}

func (w *countingWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.sent += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (h *Hub) close() {
	for _, l := range append(h.hub, h.artifacts...) {
		l.Close()
	}
}

// listen binds the requested port, or the kept one, or any port if the kept one is taken. The name localhost
// means both loopback addresses, so that a browser that tries ::1 first finds no other server there.
func listen(host string, asked, kept int) ([]net.Listener, error) {
	first, err := listenOn("127.0.0.1", asked)
	if asked == 0 {
		if first, err = listenOn("127.0.0.1", kept); errors.Is(err, syscall.EADDRINUSE) {
			first, err = listenOn("127.0.0.1", 0)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("listening as %s: %w", host, err)
	}
	if host != place.HubHost {
		return []net.Listener{first}, nil
	}
	second, err := listenOn("::1", port(first))
	if errors.Is(err, syscall.EADDRINUSE) {
		first.Close()
		return nil, fmt.Errorf("listening as %s: %w", host, err)
	}
	if err != nil { // no IPv6 here
		return []net.Listener{first}, nil
	}
	return []net.Listener{first, second}, nil
}

func listenOn(address string, port int) (net.Listener, error) {
	return net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port)))
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }
