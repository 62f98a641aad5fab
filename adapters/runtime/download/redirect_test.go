package download

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"companion/messages"
)

// C4, M4: the headers of each request, also after a redirect, with a server that sets cookies and with proxy variables.
func TestRequestsCarryNothing(t *testing.T) {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY"} {
		t.Setenv(name, "http://user:secret@127.0.0.1:1")
	}
	var seen []http.Header
	server, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Clone())
		w.Header().Set("Set-Cookie", "id=1; Path=/")
		if r.URL.Path == "/models/g" {
			http.Redirect(w, r, "/models/h", http.StatusFound)
			return
		}
		content(`"one"`)(w, r)
	})
	req := request(server)
	if err := client.Fetch(t.Context(), req, &memory{}); err != nil {
		t.Fatal(err)
	}
	req.Offset, req.Validator = 100, `"one"`
	if err := client.Fetch(t.Context(), req, bufferOf(100)); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 4 {
		t.Fatalf("got %d requests, want 4", len(seen))
	}
	for i, header := range seen {
		want := map[string]string{"User-Agent": "Go-http-client/1.1"}
		if i >= 2 {
			want["Range"], want["If-Range"] = "bytes=100-", `"one"`
		}
		if len(header) != len(want) {
			t.Errorf("request %d: got headers %v, want only %v", i, header, want)
		}
		for k, v := range want {
			if header.Get(k) != v {
				t.Errorf("request %d: got %s %q, want %q", i, k, header.Get(k), v)
			}
		}
	}
}

// M4, T6: the URL of each redirect is checked like the first one; no credential is sent, and at most five redirects are
// followed.
func TestRedirects(t *testing.T) {
	var elsewhere int
	other, _ := serve(t, func(http.ResponseWriter, *http.Request) { elsewhere++ })
	for name, c := range map[string]struct {
		location string
		want     messages.Reason
	}{
		"inside":              {"/models/end", messages.ReasonOK},
		"absolute inside":     {"SELF/models/end", messages.ReasonOK},
		"another host":        {other.URL + "/models/g", messages.ReasonSourceNotAllowed},
		"scheme-relative":     {"//" + other.Listener.Addr().String() + "/models/g", messages.ReasonMalformedSpec},
		"outside the path":    {"/other", messages.ReasonSourceNotAllowed},
		"dot segments":        {"/models/../models/end", messages.ReasonMalformedSpec},
		"encoded dots":        {"/models/%2e%2e/models/end", messages.ReasonMalformedSpec},
		"credentials":         {"https://u:p@SELFHOST/models/end", messages.ReasonMalformedSpec},
		"fragment":            {"/models/end#x", messages.ReasonMalformedSpec},
		"clear text":          {"http://SELFHOST/models/end", messages.ReasonHTTPSRequired},
		"another scheme":      {"file:///etc/passwd", messages.ReasonMalformedSpec},
		"relative":            {"end", messages.ReasonMalformedSpec},
		"five":                {"/models/r4", messages.ReasonOK},
		"six":                 {"/models/r5", messages.ReasonSourceNotAllowed},
		"no location":         {"", messages.ReasonSourceNotAllowed},
		"for ever":            {"/models/g", messages.ReasonSourceNotAllowed},
		"two locations given": {"/models/end\n/models/end", messages.ReasonSourceNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			var server *httptest.Server
			server, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
				switch p := strings.TrimPrefix(r.URL.Path, "/models/"); {
				case p == "g":
					for l := range strings.SplitSeq(c.location, "\n") {
						l = strings.Replace(strings.Replace(l, "SELFHOST", r.Host, 1), "SELF", "https://"+r.Host, 1)
						if l != "" {
							w.Header().Add("Location", l)
						}
					}
					w.WriteHeader(http.StatusFound)
				case p[0] == 'r' && p != "r0":
					n, _ := strconv.Atoi(p[1:])
					w.Header().Set("Location", "/models/r"+strconv.Itoa(n-1))
					w.WriteHeader(http.StatusTemporaryRedirect)
				default:
					content(`"one"`)(w, r)
				}
			})
			var sink memory
			err := client.Fetch(t.Context(), request(server), &sink)
			if got := reasonOf(err); got != c.want {
				t.Fatalf("Fetch: got %v, want %s", err, c.want)
			}
			if (c.want == messages.ReasonOK) != (sink.begun == 1) {
				t.Fatalf("sink: got begun %d times, want once only without an error", sink.begun)
			}
			quiet(t, err, server)
		})
	}
	if elsewhere != 0 {
		t.Fatalf("other host: got %d requests, want none", elsewhere)
	}
}
