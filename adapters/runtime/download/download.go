// Package download pumps an artifact's bytes from its host to a sink (contract M4, M5, M8). It
// computes no digest and gives no verdict: a nil error says that the server ended its answer as it
// announced, nothing about what the bytes are.
//
// Whom it may ask is decided twice: every URL, also that of a redirect, passes source.Allowed, and
// every address that a name resolves to is checked in the moment of connecting, so that a name cannot
// lead into the user's own network. Each request is made from nothing: no cookie, no credential, no
// Referer, no header but Range and If-Range (C4). Proxy variables are ignored, because a proxy would
// connect on our behalf where no address can be checked. Transport state lives for one Fetch: nothing
// is shared between artifacts, and no connection stays open behind the caller's back.
package download

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"companion/adapters/origin"
	"companion/messages"
)

const (
	maxRedirects = 5 // M4
	// defaultStall bounds every silence: connecting, waiting for the head, waiting for bytes.
	defaultStall = 30 * time.Second
	// leastProgress must arrive within a stall period: a server that drips a byte now and then would
	// otherwise hold a transfer for ever.
	leastProgress = 32 << 10
	bufferSize    = 128 << 10
	maxHeadBytes  = 64 << 10
)

// Error is the failure of a transfer. Its text never holds a URL, host or address; the wrapped cause
// may, so it is for errors.Is and errors.As, not for logs.
type Error struct {
	Reason messages.Reason // https_required, bad_status, transfer_failed or source_not_allowed
	// Permanent says that trying the same URL again is pointless (M8).
	Permanent bool
	Status    int // HTTP status, for bad_status
	what      string
	cause     error
}

func (e *Error) Error() string {
	if e.Status != 0 {
		return fmt.Sprintf("download: %s %d (%s)", e.what, e.Status, e.Reason)
	}
	return fmt.Sprintf("download: %s (%s)", e.what, e.Reason)
}

func (e *Error) Unwrap() error { return e.cause }

// Request says what to fetch.
type Request struct {
	URL          string
	Origins      []string // M4
	PrivateHosts []string // host names that may resolve to loopback or private addresses
	// Offset and Validator ask to go on after the bytes that the sink already has. Validator is the
	// strong entity tag that Sink.Begin was told; without one the transfer is from zero.
	Offset    int64
	Validator string
}

func (r Request) resumes() bool { return r.Offset > 0 && strong(r.Validator) }

// Sink takes the bytes, in order, from one goroutine.
type Sink interface {
	// Begin is called once, before the first Write. Offset is the position of the first byte: that of
	// the request when the server confirmed that it serves the same object, otherwise 0, and then
	// everything held before must be thrown away. Validator is the object's strong entity tag, or empty.
	Begin(offset int64, validator string) error
	// Write takes the next bytes. Its error ends the transfer at once and is returned by Fetch as it is.
	Write(p []byte) (int, error)
}

// Client makes transfers. It is safe for concurrent use and holds no connection.
type Client struct {
	roots *x509.CertPool
	stall time.Duration
}

// New returns a Client that trusts roots, or the system's when roots is nil. Stall bounds every
// silence of a server; zero means 30 s.
func New(roots *x509.CertPool, stall time.Duration) *Client {
	if stall <= 0 {
		stall = defaultStall
	}
	return &Client{roots, stall}
}

// errStalled is the cause with which the watchdog ends a transfer.
var errStalled = errors.New("no progress")

// Fetch pumps the object into sink. Its errors: *source.Error for a URL that is not allowed, *Error for
// the transfer, the sink's own error, or the cause of ctx's end.
func (c *Client) Fetch(ctx context.Context, req Request, sink Sink) error {
	pumping, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(c.stall, func() { cancel(errStalled) })
	defer watchdog.Stop()
	transport := c.transport(req.PrivateHosts)
	defer transport.CloseIdleConnections()

	resp, offset, err := open(pumping, transport, req)
	if err == nil {
		defer resp.Body.Close()
		if err := sink.Begin(offset, validator(resp)); err != nil {
			return err
		}
		err = c.pump(resp.Body, sink, watchdog)
	}
	if transfer := (*Error)(nil); err == nil || errors.As(err, &transfer) && !transfer.Permanent {
		// A server that sees the connection close may still end its answer in good order, and the
		// transport then hands that over: an end that was ours is never a success of the transfer.
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(context.Cause(pumping), errStalled):
			return failed("the server is silent or too slow", errStalled)
		}
	}
	return err
}

func (c *Client) transport(privateHosts []string) *http.Transport {
	var http1 http.Protocols
	http1.SetHTTP1(true)
	return &http.Transport{
		Protocols:              &http1,
		DialContext:            dialer{privateHosts, c.stall}.dial,
		TLSClientConfig:        &tls.Config{RootCAs: c.roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    c.stall,
		DisableCompression:     true, // the bytes are hashed as they are stored
		MaxResponseHeaderBytes: maxHeadBytes,
	}
}

// pump copies until the end of the answer.
func (c *Client) pump(body io.Reader, sink Sink, watchdog *time.Timer) error {
	buffer := make([]byte, bufferSize)
	progress := leastProgress // the head was progress enough
	for {
		if progress >= leastProgress {
			watchdog.Reset(c.stall)
			progress = 0
		}
		n, err := body.Read(buffer)
		progress += n
		if n > 0 {
			if _, err := sink.Write(buffer[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return failed("the connection broke", err)
		}
	}
}

// open asks for the object, and says where the bytes of the answer begin. An answer that does not fit
// the range asked for is dropped, and the object is asked for anew, from zero.
func open(ctx context.Context, transport http.RoundTripper, req Request) (*http.Response, int64, error) {
	resp, err := follow(ctx, transport, req, req.resumes())
	if err != nil {
		return nil, 0, err
	}
	if req.resumes() {
		if resp.StatusCode == http.StatusPartialContent && confirms(resp, req) {
			return resp, req.Offset, nil
		}
		if resp.StatusCode == http.StatusPartialContent || resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
			_ = resp.Body.Close()
			if resp, err = follow(ctx, transport, req, false); err != nil {
				return nil, 0, err
			}
		}
	}
	encoding := resp.Header.Get("Content-Encoding")
	switch {
	case resp.StatusCode == http.StatusOK && (encoding == "" || strings.EqualFold(encoding, "identity")):
		return resp, 0, nil
	case resp.StatusCode == http.StatusOK:
		err = &Error{Reason: messages.ReasonTransferFailed, Permanent: true, what: "an encoding that nobody asked for"}
	default:
		err = &Error{Reason: messages.ReasonBadStatus, Permanent: resp.StatusCode < 500, Status: resp.StatusCode, what: "the server answered"}
	}
	_ = resp.Body.Close()
	return nil, 0, err
}

// follow makes the request, and those that redirects ask for. Each is built from nothing but the URL
// and the range, so that nothing of one host's reaches the next (M4).
func follow(ctx context.Context, transport http.RoundTripper, req Request, ranged bool) (*http.Response, error) {
	target := req.URL
	for range 1 + maxRedirects {
		if err := origin.Allowed(target, req.Origins); err != nil {
			return nil, err
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
		if err != nil {
			return nil, &Error{Reason: messages.ReasonMalformedSpec, Permanent: true, what: "a URL that cannot be asked for", cause: err}
		}
		if ranged {
			r.Header.Set("Range", fmt.Sprintf("bytes=%d-", req.Offset))
			r.Header.Set("If-Range", req.Validator)
		}
		resp, err := transport.RoundTrip(r)
		if err != nil {
			return nil, connectFailed(err)
		}
		if !redirects(resp.StatusCode) {
			return resp, nil
		}
		_ = resp.Body.Close()
		if target, err = next(r.URL, resp.Header.Values("Location")); err != nil {
			return nil, err
		}
	}
	return nil, &Error{Reason: messages.ReasonSourceNotAllowed, Permanent: true, what: "too many redirects"}
}

func redirects(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// next is the URL of a redirect, unresolved, so that source.Allowed sees the dot segments that
// resolving would remove. Relative forms other than an absolute path are not understood.
func next(from *url.URL, locations []string) (string, error) {
	if len(locations) != 1 {
		return "", &Error{Reason: messages.ReasonSourceNotAllowed, Permanent: true, what: "a redirect without one location"}
	}
	location := locations[0]
	if strings.HasPrefix(location, "/") && !strings.HasPrefix(location, "//") {
		return from.Scheme + "://" + from.Host + location, nil
	}
	if scheme, _, _ := strings.Cut(location, ":"); strings.EqualFold(scheme, "http") {
		return "", &Error{Reason: messages.ReasonHTTPSRequired, Permanent: true, what: "a redirect to clear text"}
	}
	return location, nil
}

// confirms reports whether a 206 goes on exactly where the request asked, in the same object, to its
// end (RFC 9110 sections 14.4 and 15.3.7).
func confirms(resp *http.Response, req Request) bool {
	span, ok := strings.CutPrefix(resp.Header.Get("Content-Range"), "bytes ")
	if !ok || validator(resp) != req.Validator || resp.Header.Get("Content-Encoding") != "" {
		return false
	}
	span, total, _ := strings.Cut(span, "/")
	first, last, _ := strings.Cut(span, "-")
	f, err1 := strconv.ParseInt(first, 10, 64)
	l, err2 := strconv.ParseInt(last, 10, 64)
	n, err3 := strconv.ParseInt(total, 10, 64)
	return errors.Join(err1, err2, err3) == nil && f == req.Offset && l == n-1 && l >= f &&
		(resp.ContentLength == -1 || resp.ContentLength == l-f+1)
}

// validator is the answer's entity tag if it is strong: a weak one does not promise the same bytes.
func validator(resp *http.Response) string {
	if tag := resp.Header.Get("ETag"); strong(tag) {
		return tag
	}
	return ""
}

func strong(tag string) bool {
	return len(tag) > 2 && len(tag) <= 256 && tag[0] == '"' && tag[len(tag)-1] == '"' && !strings.ContainsAny(tag[1:len(tag)-1], "\" \r\n")
}

func connectFailed(err error) error {
	if refused := (*addressError)(nil); errors.As(err, &refused) {
		return &Error{Reason: messages.ReasonSourceNotAllowed, Permanent: true, what: "the host resolves to an address that is refused", cause: err}
	}
	if invalid := (*tls.CertificateVerificationError)(nil); errors.As(err, &invalid) {
		return &Error{Reason: messages.ReasonTransferFailed, Permanent: true, what: "the server's certificate is not trusted", cause: err}
	}
	return failed("the server could not be reached", err)
}

func failed(what string, cause error) *Error {
	return &Error{Reason: messages.ReasonTransferFailed, what: what, cause: cause}
}
