package download

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"companion/messages"
)

// M8: without a validator, the size confirms an offset, so that a transfer continues from another mirror. A server with
// an object of another size is refused before the sink discards any byte.
func TestContinueFromAnotherMirror(t *testing.T) {
	const at = 1000
	total := len(object)
	short := object[:total-1]
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    messages.Reason
		offset  int64
	}{
		"same size":     {content(`"of this mirror"`), messages.ReasonOK, at},
		"no validator":  {content(""), messages.ReasonOK, at},
		"ignores Range": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(object) }, messages.ReasonOK, 0},
		"another size": {func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(short))
		}, messages.ReasonSizeMismatch, -1},
		"longer": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(total+1))
			_, _ = w.Write(append(bytes.Clone(object), 'x'))
		}, messages.ReasonSizeMismatch, -1},
		"a web page": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = w.Write([]byte("<html>Please sign in to this network</html>"))
		}, messages.ReasonTransferFailed, -1},
		"an error": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, messages.ReasonBadStatus, -1},
	} {
		t.Run(name, func(t *testing.T) {
			server, client := serve(t, c.handler)
			req := request(server)
			req.Offset, req.Size = at, int64(total)
			sink := bufferOf(at)
			err := client.Fetch(t.Context(), req, sink)
			if got := reasonOf(err); got != c.want {
				t.Fatalf("Fetch: got %v, want %s", err, c.want)
			}
			switch {
			case c.offset < 0 && (sink.begun != 0 || sink.Len() != at):
				t.Fatalf("sink: got begun %d times with %d bytes, want unchanged", sink.begun, sink.Len())
			case c.offset >= 0 && (sink.offset != c.offset || !bytes.Equal(sink.Bytes(), object)):
				t.Fatalf("got begun at %d with %d bytes, want at %d with all", sink.offset, sink.Len(), c.offset)
			}
			quiet(t, err, server)
		})
	}
}

// M8: a body that ends with the connection may be incomplete, so its bytes are kept and the transfer continues.
func TestBodyWithoutLength(t *testing.T) {
	for _, sent := range []int{5000, len(object)} {
		server, client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			conn, buffered, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			defer conn.Close()
			writeAll(buffered.Writer, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", object[:sent])
		})
		req := request(server)
		req.Size = int64(len(object))
		sink := &memory{}
		err := client.Fetch(t.Context(), req, sink)
		var e *Error
		if whole := sent == len(object); whole != (err == nil) || !whole && (!errors.As(err, &e) || e.Permanent) {
			t.Errorf("%d of %d bytes: got %v, want an error only for an incomplete body", sent, len(object), err)
		}
		if sink.Len() != sent {
			t.Errorf("%d of %d bytes: got %d in the sink, want all that were sent", sent, len(object), sink.Len())
		}
	}
}

func writeAll(w *bufio.Writer, head string, body []byte) {
	_, _ = w.WriteString(head)
	_, _ = w.Write(body)
	_ = w.Flush()
}

// M8: the server's Retry-After is reported.
func TestRetryAfterIsReported(t *testing.T) {
	for _, status := range []int{429, 503} {
		server, client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "17")
			w.WriteHeader(status)
		})
		err := client.Fetch(t.Context(), request(server), &memory{})
		var e *Error
		if !errors.As(err, &e) || e.Permanent || e.RetryAfter != 17*time.Second {
			t.Errorf("status %d: got %#v, want Retry-After 17 s", status, err)
		}
	}
}

// M4: the error for a refused address names the probable cause in this network and the setting that allows it.
func TestAddressErrorsExplain(t *testing.T) {
	for placeholder, want := range map[bool]string{true: "placeholder", false: "not public"} {
		text := fmt.Sprint(connectFailed(&addressError{placeholder}))
		if !strings.Contains(text, want) || !strings.Contains(text, "manifest.private_hosts") {
			t.Errorf("placeholder %t: got %q, want %q and the setting that helps", placeholder, text, want)
		}
	}
}
