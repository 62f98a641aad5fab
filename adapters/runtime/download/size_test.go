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

// M8: with a size, an offset is confirmed by it where no validator is known: the bytes continue those of another
// mirror. A server with another object is refused before the sink loses anything.
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
				t.Fatalf("Fetch = %v, want %s", err, c.want)
			}
			switch {
			case c.offset < 0 && (sink.begun != 0 || sink.Len() != at):
				t.Fatalf("the sink was begun %d times and holds %d bytes, want untouched", sink.begun, sink.Len())
			case c.offset >= 0 && (sink.offset != c.offset || !bytes.Equal(sink.Bytes(), object)):
				t.Fatalf("began at %d with %d bytes, want %d with all", sink.offset, sink.Len(), c.offset)
			}
			quiet(t, err, server)
		})
	}
}

// M8: a body that only the end of the connection ends may have been cut, so its bytes are kept and continued.
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
			t.Errorf("%d of %d bytes: Fetch = %v", sent, len(object), err)
		}
		if sink.Len() != sent {
			t.Errorf("%d of %d bytes: the sink has %d", sent, len(object), sink.Len())
		}
	}
}

func writeAll(w *bufio.Writer, head string, body []byte) {
	_, _ = w.WriteString(head)
	_, _ = w.Write(body)
	_ = w.Flush()
}

// M8: what a server asks for with Retry-After is reported.
func TestRetryAfterIsReported(t *testing.T) {
	for _, status := range []int{429, 503} {
		server, client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "17")
			w.WriteHeader(status)
		})
		err := client.Fetch(t.Context(), request(server), &memory{})
		var e *Error
		if !errors.As(err, &e) || e.Permanent || e.RetryAfter != 17*time.Second {
			t.Errorf("status %d: Fetch = %#v, want Retry-After 17 s", status, err)
		}
	}
}

// M4: a refused address is explained by what answers on this network, and is no reason to distrust the manifest.
func TestAddressErrorsExplain(t *testing.T) {
	for placeholder, want := range map[bool]string{true: "placeholder", false: "not public"} {
		text := fmt.Sprint(connectFailed(&addressError{placeholder}))
		if !strings.Contains(text, want) || !strings.Contains(text, "manifest.private_hosts") {
			t.Errorf("placeholder %t: got %q, want %q and the setting that helps", placeholder, text, want)
		}
	}
}
