package http1

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
)

// RFC 9110, 6.4.1 and 8.6, RFC 9112, 6.3: an answer to HEAD, also to a malformed one, and an answer with status 204 or
// 304 end with their head. Every other answer has the content that its framing announces. net/http's client is the
// oracle for the framing: the bytes that it leaves unread must be the next answer.
func TestAnswersWithoutContent(t *testing.T) {
	const text = `{"error":"x"}`
	for name, c := range map[string]struct {
		head   string // of the request, without the empty line
		status int
		length string
		body   string
	}{
		"GET":                        {"GET /a HTTP/1.1\r\nHost: x", 403, "13", text},
		"GET, chunked":               {"GET /a HTTP/1.1\r\nHost: x", 403, "", text},
		"HEAD":                       {"HEAD /a HTTP/1.1\r\nHost: x", 403, "13", ""},
		"HEAD, chunked":              {"HEAD /a HTTP/1.1\r\nHost: x", 200, "", ""},
		"HEAD, close":                {"HEAD /a HTTP/1.1\r\nHost: x\r\nConnection: close", 403, "13", ""},
		"HEAD, encoded path":         {"HEAD /%61 HTTP/1.1\r\nHost: x", 403, "13", ""},
		"HEAD, absolute form":        {"HEAD http://x/ HTTP/1.1\r\nHost: x", 403, "13", ""},
		"HEAD, HTTP/1.0":             {"HEAD / HTTP/1.0", 403, "13", ""},
		"HEAD, field without colon":  {"HEAD /a HTTP/1.1\r\nHost x", 403, "13", ""},
		"HEAD, too long":             {"HEAD /a HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 17<<10), 403, "13", ""},
		"HEAD with a body":           {"HEAD /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3", 403, "13", ""},
		"head is another method":     {"head /a HTTP/1.1\r\nHost: x", 403, "13", text},
		"HEADER is another method":   {"HEADER /a HTTP/1.1\r\nHost: x", 403, "13", text},
		"204":                        {"GET /a HTTP/1.1\r\nHost: x", 204, "", ""},
		"204 with a length":          {"GET /a HTTP/1.1\r\nHost: x", 204, "13", ""},
		"304":                        {"GET /a HTTP/1.1\r\nHost: x", 304, "", ""},
		"1xx is not the last answer": {"GET /a HTTP/1.1\r\nHost: x", 102, "13", text},
		"CONNECT":                    {"CONNECT x:1 HTTP/1.1\r\nHost: x", 403, "13", text},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial := serving(t, func(w http.ResponseWriter, r *http.Request) {
					if c.length != "" {
						w.Header()["Content-Length"] = []string{c.length}
					}
					w.WriteHeader(c.status)
					for _, part := range []string{text[:4], text[4:]} {
						if n, err := io.WriteString(w, part); n != len(part) || err != nil {
							t.Errorf("the handler's write: got %d, %v, want %d, nil", n, err, len(part))
						}
					}
				})
				conn := dial()
				method, _, _ := strings.Cut(c.head, " ")
				go func() { _, _ = io.WriteString(conn, c.head+"\r\n\r\n"+good) }()
				answer, rest := bytes.Buffer{}, bufio.NewReader(conn)
				resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(rest, &answer)), &http.Request{Method: method})
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				if err != nil || string(body) != c.body {
					t.Errorf("got content %q, %v, want %q", body, err, c.body)
				}
				_, content, _ := strings.Cut(answer.String(), "\r\n\r\n")
				_, _ = io.Copy(&answer, rest)
				conn.Close()
				want := c.status
				if want < 200 {
					want = 200
				}
				if resp.StatusCode != want || resp.Header.Get("Date") == "" {
					t.Errorf("got status %d and date %q, want %d and a date", resp.StatusCode, resp.Header.Get("Date"), want)
				}
				if c.body == "" {
					if framing := fmt.Sprint(resp.Header["Content-Length"], resp.TransferEncoding); framing != "[] []" {
						t.Errorf("got framing %s of no content, want none", framing)
					}
					// The head must be followed by the next answer or by nothing.
					if content != "" && !strings.HasPrefix(content, "HTTP/1.1 ") {
						t.Errorf("got %q after the head, want nothing or the next answer", content)
					}
				}
			})
		})
	}
}

// RFC 9112, 9.3: an answer to HEAD leaves the connection usable, and the next answer has its content.
func TestHeadKeepsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := serving(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello") })
		conn := dial()
		go func() { _, _ = io.WriteString(conn, "HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n"+good) }()
		in := bufio.NewReader(conn)
		for _, want := range []struct{ method, body string }{{"HEAD", ""}, {"GET", "hello"}} {
			resp, err := http.ReadResponse(in, &http.Request{Method: want.method})
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || string(body) != want.body {
				t.Errorf("%s: got %q, %v, want %q", want.method, body, err, want.body)
			}
		}
		conn.Close()
	})
}
