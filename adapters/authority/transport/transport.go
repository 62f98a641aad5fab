// Package transport makes the HTTP client of the authority wing for requests to the hub. The client verifies TLS fully, trusts
// an additional root certificate if the configuration names one, and has a time-out for each step. It follows no redirect, so
// that no credential reaches another host (O7, M3).
package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// Timeout bounds one whole exchange with the hub: metadata and tokens are small.
const Timeout = 30 * time.Second

// Roots returns the system's root certificates plus those in caFile (PEM). If caFile is empty it returns nil, which means the
// system's.
func Roots(caFile string) (*x509.CertPool, error) {
	if caFile == "" {
		return nil, nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("reading the hub's certificate authority: %w", err)
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM format", caFile)
	}
	return roots, nil
}

// New returns a client that trusts Roots(caFile). It does not change the process's default client and transport.
func New(caFile string) (*http.Client, error) {
	roots, err := Roots(caFile)
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Timeout: Timeout,
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: 20 * time.Second,
			// Exchanges with the hub are minutes apart. A kept connection would be stale, and a token request on it could
			// be lost.
			DisableKeepAlives:  true,
			DisableCompression: true,
			ForceAttemptHTTP2:  true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// ErrTooLarge means that a response is longer than allowed.
var ErrTooLarge = errors.New("the answer is too large")

// ReadAll reads body to its end. A body longer than limit bytes is ErrTooLarge.
func ReadAll(body io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, ErrTooLarge
	}
	return data, nil
}
