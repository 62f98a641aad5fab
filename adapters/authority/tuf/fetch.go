package tuf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"companion/adapters/authority/transport"
	"companion/adapters/retryafter"
	"companion/messages"
)

// maxFile bounds any metadata file, whatever signed metadata says of its length.
const maxFile = 8 << 20

// errFetch marks a transfer that failed before its bytes could be verified.
var errFetch = errors.New("fetching the manifest")

// fetcher fetches the files of one refresh. It keeps all fetched roots; the updater keeps only the newest.
type fetcher struct {
	ctx    context.Context // of the refresh: go-tuf's interface has none
	client *http.Client
	base   *url.URL
	access messages.Secret
	roots  map[int64][]byte
	after  time.Duration // Retry-After of the last response that was not 200
}

// waitError adds the hub's Retry-After to an error.
type waitError struct {
	error
	after time.Duration
}

func (e *waitError) Unwrap() error { return e.error }

// explain adds Retry-After and other data of the fetcher to err, the error of a refresh.
func (f *fetcher) explain(err error) error {
	if f.after == 0 {
		return err
	}
	return &waitError{err, f.after}
}

// DownloadFile implements go-tuf's Fetcher. Time-outs are the client's and the refresh's.
func (f *fetcher) DownloadFile(file string, maxLength int64, _ time.Duration) ([]byte, error) {
	u, err := url.Parse(file)
	if err != nil || u.Scheme != "https" || u.Host != f.base.Host || !strings.HasPrefix(u.Path, f.base.Path) {
		return nil, fmt.Errorf("%w: a file outside the repository", errFetch)
	}
	if maxLength <= 0 || maxLength > maxFile {
		maxLength = maxFile
	}
	req, err := http.NewRequestWithContext(f.ctx, http.MethodGet, file, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFetch, err)
	}
	if !f.access.IsZero() {
		req.Header.Set("Authorization", "Bearer "+f.access.Reveal())
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFetch, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		f.after = retryafter.Of(resp.Header, time.Now())
		return nil, &metadata.ErrDownloadHTTP{StatusCode: resp.StatusCode, URL: file}
	}
	data, err := transport.ReadAll(resp.Body, maxLength)
	if errors.Is(err, transport.ErrTooLarge) {
		return nil, &metadata.ErrDownloadLengthMismatch{Msg: "longer than signed or allowed"}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFetch, err)
	}
	if webPage(data) {
		// A captive portal or a proxy answers instead of the hub.
		return nil, fmt.Errorf("%w: a web page instead of metadata", errFetch)
	}
	if version, ok := rootVersion(u.Path[len(f.base.Path):]); ok {
		f.roots[version] = data
	}
	return data, nil
}

// webPage reports whether data is markup: metadata is a JSON object.
func webPage(data []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), " \t\r\n"), []byte("<"))
}

func rootVersion(name string) (int64, bool) {
	number, ok := strings.CutSuffix(name, ".root.json")
	if !ok {
		return 0, false
	}
	version, err := strconv.ParseInt(number, 10, 64)
	return version, err == nil
}
