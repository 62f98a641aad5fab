// Package download transfers an artifact's bytes from its host to a sink (contract M4, M5, M8). It
// verifies no content: a nil error means only that the response was complete as the server announced it.
//
// Every URL, also the target of a redirect, must pass origin.Allowed. Every address that a host name
// resolves to is checked before the connection is made, so that no name can lead into the user's own
// network. A request has no cookie, credential or Referer, and no header except Range and
// If-Range (C4). Proxy variables are ignored, because a proxy would connect to addresses that cannot
// be checked here. Artifacts share no connection. None stays open after Fetch returns, unless the request has a Line.
package download

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"companion/adapters/origin"
	"companion/adapters/retryafter"
	"companion/messages"
)

const (
	maxRedirects = 5 // M4
	// defaultStall bounds connecting, waiting for the response head, and waiting for bytes.
	defaultStall = 30 * time.Second
	// leastProgress bytes must arrive within a stall period, so that a server that sends single bytes cannot keep a
	// transfer open without limit.
	leastProgress = 32 << 10
	bufferSize    = 128 << 10
	maxHeadBytes  = 64 << 10
)

// Error is the failure of a transfer. Its text never contains a URL, host or address. The wrapped cause
// may, so use it with errors.Is and errors.As and do not log it.
type Error struct {
	// Reason is https_required, bad_status, transfer_failed, size_mismatch, address_not_allowed,
	// malformed_spec or source_not_allowed.
	Reason messages.Reason
	// Permanent means that the same URL must not be tried again (M8).
	Permanent bool
	Status    int // HTTP status, for bad_status
	// RetryAfter is the server's Retry-After (RFC 9110, section 10.2.3); zero if there is none.
	RetryAfter time.Duration
	what       string
	cause      error
}

func (e *Error) Error() string {
	if e.Status != 0 {
		return fmt.Sprintf("download: %s %d (%s)", e.what, e.Status, e.Reason)
	}
	return fmt.Sprintf("download: %s (%s)", e.what, e.Reason)
}

func (e *Error) Unwrap() error { return e.cause }

// Request is one object to fetch.
type Request struct {
	URL          string
	Origins      []string // M4
	PrivateHosts []string // host names that may resolve to loopback or private addresses
	// Offset and Validator request a continuation after the bytes that the sink already has. Validator is the strong
	// entity tag that Sink.Begin received, if the bytes came from this URL.
	Offset    int64
	Validator string
	// Size is the length of the whole object in bytes; zero: not known. A server that announces another
	// length is refused with size_mismatch before Sink.Begin. With a Size, an Offset without a Validator is
	// requested as well: the bytes may continue a transfer from another mirror, and the digest of the whole object
	// shows whether they fit.
	Size int64
	// Length is the number of bytes wanted from Offset on; zero: all. It needs a Size. A server that ignores it sends the whole
	// object, from zero.
	Length int64
	// Line keeps the connection for the next request; nil: it is closed.
	Line *Line
	// AnyOrigin allows redirects to any https URL: the user gave the URL and the digest of the object (M16). Visited, if not
	// nil, is then called with the URL of each request.
	AnyOrigin bool
	Visited   func(url string)
	// Announced, if not nil, is called before Sink.Begin with the length of the whole object, if the server announces it. Fetch
	// ends with its error, unchanged.
	Announced func(bytes int64) error
}

// allowed returns why target may not be requested, or nil (M4).
func (r Request) allowed(target string) error {
	if !r.AnyOrigin {
		return origin.Allowed(target, r.Origins)
	}
	if _, err := origin.Host(target); err != nil {
		return err
	}
	if r.Visited != nil {
		r.Visited(target)
	}
	return nil
}

// ranged reports whether a part of the object is wanted.
func (r Request) ranged() bool {
	return r.Offset > 0 && (strong(r.Validator) || r.Validator == "" && r.Offset < r.Size) || r.Length > 0 && r.Length < r.Size
}

// last returns the position of the last wanted byte of a ranged request, in an object of this size.
func (r Request) last(size int64) int64 {
	if r.Length > 0 {
		return r.Offset + r.Length - 1
	}
	return size - 1
}

// Line keeps one connection between the requests of one transfer, which all have the same private hosts. The zero Line has
// none. It is not safe for concurrent use.
type Line struct{ transport *http.Transport }

// Close closes the connection.
func (l *Line) Close() {
	if l.transport != nil {
		l.transport.CloseIdleConnections()
	}
}

// Sink receives the bytes, in order, from one goroutine.
type Sink interface {
	// Begin is called once, before the first Write. offset is the position of the first byte. It equals the request's
	// Offset if the server confirmed that it serves the same object, and is 0 otherwise; the sink must then discard its
	// bytes. validator is the object's strong entity tag, or empty.
	Begin(offset int64, validator string) error
	// Write receives the next bytes. Fetch ends at once with its error, unchanged.
	Write(p []byte) (int, error)
}

// Client makes transfers. It is safe for concurrent use and keeps no connection.
type Client struct {
	roots *x509.CertPool
	stall time.Duration
}

// New returns a Client that trusts roots, or the system's if roots is nil. stall bounds every wait for
// a server; zero means 30 s.
func New(roots *x509.CertPool, stall time.Duration) *Client {
	if stall <= 0 {
		stall = defaultStall
	}
	return &Client{roots, stall}
}

// errStalled is the cause with which the watchdog cancels a transfer.
var errStalled = errors.New("no progress")

// Fetch transfers the object to sink. Errors: *origin.Error for a URL that is not allowed, *Error for a failure of the
// transfer, the sink's own error, or the cause of ctx's end.
func (c *Client) Fetch(ctx context.Context, req Request, sink Sink) error {
	pumping, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(c.stall, func() { cancel(errStalled) })
	defer watchdog.Stop()
	line := req.Line
	if line == nil {
		line = &Line{}
		defer line.Close()
	}
	if line.transport == nil {
		line.transport = c.transport(req.PrivateHosts)
	}

	resp, offset, err := open(pumping, line.transport, req)
	if err == nil {
		defer resp.Body.Close()
		if req.Announced != nil && resp.ContentLength >= 0 {
			if err := req.Announced(offset + resp.ContentLength); err != nil {
				return err
			}
		}
		if err := sink.Begin(offset, validator(resp)); err != nil {
			return err
		}
		end := req.Size
		if resp.StatusCode == http.StatusPartialContent {
			end = req.last(req.Size) + 1
		}
		err = c.pump(resp, end-offset, sink, watchdog)
	}
	if transfer := (*Error)(nil); err == nil || errors.As(err, &transfer) && !transfer.Permanent {
		// A server that sees the connection close may still end its response properly. A transfer that was
		// cancelled here is never a success.
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

// pump copies the body until its end. left is the number of missing bytes; negative: not known.
func (c *Client) pump(resp *http.Response, left int64, sink Sink, watchdog *time.Timer) error {
	buffer := make([]byte, bufferSize)
	progress := leastProgress // the head counts as progress
	for {
		if progress >= leastProgress {
			watchdog.Reset(c.stall)
			progress = 0
		}
		n, err := resp.Body.Read(buffer)
		progress += n
		left -= int64(n)
		if n > 0 {
			if _, err := sink.Write(buffer[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			if left > 0 && resp.ContentLength < 0 && len(resp.TransferEncoding) == 0 {
				// This body ends with the connection (RFC 9112, section 6.3), so it may be incomplete.
				return failed("the connection broke", io.ErrUnexpectedEOF)
			}
			return nil
		}
		if err != nil {
			return failed("the connection broke", err)
		}
	}
}

// open requests the object and returns the offset at which the body begins. If the response does not
// fit the requested range, the object is requested again from zero.
func open(ctx context.Context, transport http.RoundTripper, req Request) (*http.Response, int64, error) {
	resp, err := follow(ctx, transport, req, req.ranged())
	if err != nil {
		return nil, 0, err
	}
	if req.ranged() {
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
	if err := judge(resp, req.Size); err != nil {
		_ = resp.Body.Close()
		return nil, 0, err
	}
	return resp, 0, nil
}

// judge returns why a response cannot be the object, or nil.
func judge(resp *http.Response, size int64) error {
	encoding := resp.Header.Get("Content-Encoding")
	switch {
	case resp.StatusCode != http.StatusOK:
		return &Error{
			Reason: messages.ReasonBadStatus, Permanent: !temporary(resp.StatusCode), Status: resp.StatusCode,
			RetryAfter: retryafter.Of(resp.Header, time.Now()), what: "the server answered",
		}
	case encoding != "" && !strings.EqualFold(encoding, "identity"):
		return &Error{Reason: messages.ReasonTransferFailed, Permanent: true, what: "the server encoded the content, which was not asked for"}
	case size > 0 && resp.ContentLength >= 0 && resp.ContentLength != size:
		if media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); media == "text/html" {
			return failed("the server sent a web page instead of the file; a network may ask for a sign-in of its own", nil)
		}
		return &Error{Reason: messages.ReasonSizeMismatch, Permanent: true, what: "the server announces another length than the manifest"}
	}
	return nil
}

// temporary reports whether a later request may succeed after this status (RFC 9110, RFC 6585): the server is overloaded
// or timed out, or a network in between requires a sign-in.
func temporary(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return status >= 500
}

// follow sends the request and follows redirects. Each request is built only from the URL and the range,
// so that no data of one host reaches the next (M4).
func follow(ctx context.Context, transport http.RoundTripper, req Request, ranged bool) (*http.Response, error) {
	target := req.URL
	for range 1 + maxRedirects {
		if err := req.allowed(target); err != nil {
			return nil, err
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
		if err != nil {
			return nil, &Error{Reason: messages.ReasonMalformedSpec, Permanent: true, what: "the URL cannot be requested", cause: err}
		}
		if ranged {
			end := ""
			if req.Length > 0 {
				end = strconv.FormatInt(req.last(req.Size), 10)
			}
			r.Header.Set("Range", fmt.Sprintf("bytes=%d-%s", req.Offset, end))
			if req.Validator != "" {
				r.Header.Set("If-Range", req.Validator)
			}
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

// next returns the URL of a redirect without resolving it, so that origin.Allowed sees dot segments that resolving
// would remove. The only supported relative form is an absolute path.
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

// confirms reports whether a 206 has exactly the wanted range of the same object (RFC 9110, sections 14.4 and 15.3.7). Without a validator, an object of the same size counts as the same.
func confirms(resp *http.Response, req Request) bool {
	span, ok := strings.CutPrefix(resp.Header.Get("Content-Range"), "bytes ")
	if !ok || req.Validator != "" && validator(resp) != req.Validator || resp.Header.Get("Content-Encoding") != "" {
		return false
	}
	span, total, _ := strings.Cut(span, "/")
	first, last, _ := strings.Cut(span, "-")
	f, err1 := strconv.ParseInt(first, 10, 64)
	l, err2 := strconv.ParseInt(last, 10, 64)
	n, err3 := strconv.ParseInt(total, 10, 64)
	return errors.Join(err1, err2, err3) == nil && f == req.Offset && l == req.last(n) && l >= f && l < n && (req.Size == 0 || n == req.Size) &&
		(resp.ContentLength == -1 || resp.ContentLength == l-f+1)
}

// validator returns the entity tag if it is strong: a weak one does not guarantee the same bytes.
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
		return &Error{Reason: messages.ReasonAddressNotAllowed, what: refused.Error(), cause: err}
	}
	if invalid := (*tls.CertificateVerificationError)(nil); errors.As(err, &invalid) {
		return &Error{Reason: messages.ReasonTransferFailed, Permanent: true, what: "the server's certificate is not trusted", cause: err}
	}
	return failed("the server could not be reached", err)
}

func failed(what string, cause error) *Error {
	return &Error{Reason: messages.ReasonTransferFailed, what: what, cause: cause}
}
