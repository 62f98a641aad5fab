package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"companion/adapters/door/controlsock"
	"companion/e2e/harness"
	"companion/messages"
)

// answer is what came back on the wire.
type answer struct {
	status int
	header http.Header
	body   string
}

// code is the reason in an error of the OpenAI shape (L10).
func (a answer) code() (code, param string) {
	var body struct {
		Error struct{ Message, Type, Code, Param string }
	}
	_ = json.Unmarshal([]byte(a.body), &body)
	return body.Error.Code, body.Error.Param
}

// send writes bytes to address and reads one answer.
func send(t *testing.T, address, request string) answer {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.WriteString(conn, request) }()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("reading the answer: %v", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("reading the answer's body: %v", err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

// host is the address and port of a base URL.
func host(t *testing.T, baseURL string) string {
	t.Helper()
	u, err := url.Parse(baseURL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

// post is a good request with body; the lines in head come first.
func post(address, path, head, body string) string {
	if !strings.Contains(head, "Host:") {
		head += "Host: " + address + "\r\n"
	}
	return fmt.Sprintf("POST %s HTTP/1.1\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, head, len(body), body)
}

// L3, L4, L5, L6a, L10, T1, T2, T3: bad requests to the running program.
func TestFrontDoorRefuses(t *testing.T) {
	c := harness.Ready(t, "[health]\nbeat = \"200ms\"\n")
	baseURL, token := c.Endpoint()
	address := host(t, baseURL)
	bearer := "Authorization: Bearer " + token + "\r\n"
	const chat = `{"messages":[{"role":"user","content":"Say one word."}],"max_tokens":2}`
	const path = "/v1/chat/completions"

	// The unchanged request succeeds, so that each row below shows its own fault.
	if a := send(t, address, post(address, path, bearer, chat)); a.status != http.StatusOK {
		t.Fatalf("a good request: got %d %s, want 200", a.status, a.body)
	}
	for name, test := range map[string]struct {
		request string
		status  int
		code    string
		param   string
	}{
		"no token":          {post(address, path, "", chat), 401, "missing_token", ""},
		"wrong token":       {post(address, path, "Authorization: Bearer "+strings.Repeat("A", 43)+"\r\n", chat), 401, "invalid_token", ""},
		"two tokens":        {post(address, path, bearer+"x-api-key: "+token+"x\r\n", chat), 403, "malformed_request", ""},
		"token in query":    {post(address, path+"?api_key="+token, "", chat), 401, "missing_token", ""},
		"wrong host":        {post(address, path, bearer+"Host: rebound.example\r\n", chat), 403, "host_not_allowed", ""},
		"host without port": {post(address, path, bearer+"Host: 127.0.0.1\r\n", chat), 403, "host_not_allowed", ""},
		"foreign origin":    {post(address, path, bearer+"Origin: https://evil.example\r\n", chat), 403, "cross_site_forbidden", ""},
		"null origin":       {post(address, path, bearer+"Origin: null\r\n", chat), 403, "cross_site_forbidden", ""},
		"cross-site":        {post(address, path, bearer+"Sec-Fetch-Site: cross-site\r\n", chat), 403, "cross_site_forbidden", ""},
		"same-site":         {post(address, path, bearer+"Sec-Fetch-Site: same-site\r\n", chat), 403, "cross_site_forbidden", ""},
		"options":           {"OPTIONS " + path + " HTTP/1.1\r\nHost: " + address + "\r\nOrigin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n\r\n", 403, "method_not_allowed", ""},
		"put":               {strings.Replace(post(address, path, bearer, chat), "POST", "PUT", 1), 403, "method_not_allowed", ""},
		"absolute form":     {post(address, "http://"+address+path, bearer, chat), 403, "malformed_request", ""},
		"unknown path":      {post(address, "/v1/unknown", bearer, chat), 404, "unknown_path", ""},
		"runtime's own":     {"GET /slots HTTP/1.1\r\nHost: " + address + "\r\n" + bearer + "\r\n", 404, "unknown_path", ""},
		"wrong method":      {"GET " + path + " HTTP/1.1\r\nHost: " + address + "\r\n" + bearer + "\r\n", 404, "unknown_path", ""},
		"unknown, no token": {post(address, "/v1/unknown", "", chat), 401, "missing_token", ""},
		"not JSON":          {post(address, path, bearer, "messages=hello"), 400, "bad_request", ""},
		"unknown field":     {post(address, path, bearer, `{"messages":[{"role":"user","content":"x"}],"frobnicate":1}`), 400, "bad_request", "frobnicate"},
		"refused field":     {post(address, path, bearer, `{"messages":[{"role":"user","content":"x"}],"id_slot":1}`), 400, "bad_request", "id_slot"},
		"outside range":     {post(address, path, bearer, `{"messages":[{"role":"user","content":"x"}],"temperature":99}`), 400, "bad_request", "temperature"},
		"duplicate key":     {post(address, path, bearer, `{"messages":[{"role":"user","content":"x"}],"seed":1,"seed":2}`), 400, "bad_request", ""},
		"no messages":       {post(address, path, bearer, `{"messages":[]}`), 400, "bad_request", "messages"},
		"another model":     {post(address, path, bearer, `{"model":"gpt-9","messages":[{"role":"user","content":"x"}]}`), 404, "model_not_found", "model"},
		"too large":         {post(address, path, bearer, `{"messages":[{"role":"user","content":"`+strings.Repeat("x", 16<<20)+`"}]}`), 413, "body_too_large", ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := send(t, address, test.request)
			code, param := a.code()
			if a.status != test.status || code != test.code || test.param != "" && param != test.param {
				t.Errorf("answered %d %s %q, want %d %s %q", a.status, code, param, test.status, test.code, test.param)
			}
			for key := range a.header {
				if strings.HasPrefix(key, "Access-Control-") {
					t.Errorf("the answer has %s, want no Access-Control header", key)
				}
			}
			if test.status == http.StatusUnauthorized && a.header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("got WWW-Authenticate %q, want Bearer", a.header.Get("WWW-Authenticate"))
			}
			if strings.Contains(a.body, token) || strings.Contains(a.body, c.Home) {
				t.Error("the answer shows a token or a path, want neither")
			}
		})
	}
	if status, _ := c.Status(); !status.CompanionAvailable {
		t.Errorf("bad requests made the companion unavailable: got %s, want available", status.Reason)
	}

	t.Run("guesses", func(t *testing.T) { guess(t, c) })

	// K6, T4: a token of an earlier start is worthless, also for the same configuration and port.
	t.Run("token of an earlier start", func(t *testing.T) {
		c.Stop()
		c.Start()
		c.Available()
		baseURL, fresh := c.Endpoint()
		address := host(t, baseURL)
		if fresh == token {
			t.Fatal("two starts have one token")
		}
		a := send(t, address, post(address, path, bearer, chat))
		if code, _ := a.code(); a.status != 401 || code != "invalid_token" {
			t.Errorf("the old token: got %d %s, want 401 invalid_token", a.status, code)
		}
		if a := send(t, address, post(address, path, "x-api-key: "+fresh+"\r\n", chat)); a.status != http.StatusOK {
			t.Errorf("the new token: got %d %s, want 200", a.status, a.body)
		}
	})
}

// L5, L6a, L10, L13: the hostile requests above, to each other route of the running program. The errors have the form of
// the route.
func TestEveryRouteRefuses(t *testing.T) {
	c := harness.Ready(t, "[front_door]\nrate_per_minute = 10000\n")
	baseURL, token := c.Endpoint()
	address := host(t, baseURL)
	bearer := "Authorization: Bearer " + token + "\r\n"
	for path, good := range map[string]string{
		"/v1/completions": `{"prompt":"x","max_tokens":2}`, "/v1/responses": `{"input":"x","max_output_tokens":2}`,
		"/v1/messages": `{"messages":[{"role":"user","content":"x"}],"max_tokens":2}`, "/v1/messages/count_tokens": `{"messages":[{"role":"user","content":"x"}]}`,
		"/v1/embeddings": `{"input":"x"}`, "/infill": `{"input_prefix":"x","input_suffix":"y","n_predict":2}`,
	} {
		served := path != "/v1/embeddings" && path != "/infill" // the model refuses these, whatever the body
		with := func(more string) string { return good[:len(good)-1] + "," + more + "}" }
		want := http.StatusOK
		if !served {
			want = http.StatusBadRequest
		}
		if a := send(t, address, post(address, path, bearer, good)); a.status != want {
			t.Errorf("%s: a good request: got %d %s, want %d", path, a.status, a.body, want)
		}
		type row struct {
			request string
			status  int
			code    string
		}
		rows := map[string]row{
			"no token":        {post(address, path, "", good), 401, "missing_token"},
			"wrong token":     {post(address, path, "x-api-key: "+strings.Repeat("A", 43)+"\r\n", good), 401, "invalid_token"},
			"two tokens":      {post(address, path, bearer+"x-api-key: "+token+"x\r\n", good), 403, "malformed_request"},
			"wrong host":      {post(address, path, bearer+"Host: rebound.example\r\n", good), 403, "host_not_allowed"},
			"foreign origin":  {post(address, path, bearer+"Origin: https://evil.example\r\n", good), 403, "cross_site_forbidden"},
			"cross-site":      {post(address, path, bearer+"Sec-Fetch-Site: cross-site\r\n", good), 403, "cross_site_forbidden"},
			"websocket":       {post(address, path, bearer+"Connection: Upgrade\r\nUpgrade: websocket\r\n", good), 403, "malformed_request"},
			"put":             {strings.Replace(post(address, path, bearer, good), "POST", "PUT", 1), 403, "method_not_allowed"},
			"absolute form":   {post(address, "http://"+address+path, bearer, good), 403, "malformed_request"},
			"dotted path":     {post(address, "/v1/.."+path, bearer, good), 403, "malformed_request"},
			"wrong method":    {"GET " + path + " HTTP/1.1\r\nHost: " + address + "\r\n" + bearer + "\r\n", 404, "unknown_path"},
			"framed twice":    {post(address, path, bearer+"Transfer-Encoding: chunked\r\n", good), 403, "malformed_request"},
			"below the route": {post(address, path+"/x", bearer, good), 404, "unknown_path"},
		}
		if served {
			for name, r := range map[string]row{
				"not JSON":      {post(address, path, bearer, "x=hello"), 400, "bad_request"},
				"unknown field": {post(address, path, bearer, with(`"frobnicate":1`)), 400, "bad_request"},
				"runtime's own": {post(address, path, bearer, with(`"id_slot":1`)), 400, "bad_request"},
				"grammar":       {post(address, path, bearer, with(`"grammar":"root ::= \"x\""`)), 400, "bad_request"},
				"outside range": {post(address, path, bearer, with(`"temperature":99`)), 400, "bad_request"},
				"a name twice":  {post(address, path, bearer, with(`"top_p":1,"top_p":0.5`)), 400, "bad_request"},
				"another model": {post(address, path, bearer, with(`"model":"gpt-9"`)), 404, "model_not_found"},
				"too deep":      {post(address, path, bearer, with(`"metadata":`+strings.Repeat("[", 5000)+strings.Repeat("]", 5000))), 400, "bad_request"},
				"text behind":   {post(address, path, bearer, good+"{}"), 400, "bad_request"},
				"a form":        {strings.Replace(post(address, path, bearer, good), "application/json", "text/plain", 1), 400, "bad_request"},
				"too large":     {post(address, path, bearer, with(`"metadata":"`+strings.Repeat("x", 16<<20)+`"`)), 413, "body_too_large"},
			} {
				rows[name] = r
			}
		}
		for name, r := range rows {
			a := send(t, address, r.request)
			if code, _ := a.code(); a.status != r.status || code != r.code {
				t.Errorf("%s, %s: got %d %q, want %d %q", path, name, a.status, code, r.status, r.code)
			}
			if anthropic := strings.HasPrefix(a.body, `{"type":"error","error":`); r.code != "malformed_request" && anthropic != strings.HasPrefix(path, "/v1/messages") { // the path of a malformed head is not known
				t.Errorf("%s, %s: got %.100s, want the route's form of errors", path, name, a.body)
			}
			for key := range a.header {
				if strings.HasPrefix(key, "Access-Control-") {
					t.Errorf("%s, %s: got %s, want no Access-Control header", path, name, key)
				}
			}
			if strings.Contains(a.body, token) || strings.Contains(a.body, c.Home) {
				t.Errorf("%s, %s: the answer shows a token or a path", path, name)
			}
		}
	}
	if status, _ := c.Status(); !status.CompanionAvailable || status.Runtime.Restarts != 0 {
		t.Errorf("afterwards: got %s and %d restarts, want available and none", status.Reason, status.Runtime.Restarts)
	}
}

// guesses is the number of wrong tokens, first from one client and then from many at once.
const guesses = 10_000

// T3, L3, A4: ten thousand wrong tokens, one after another and from many clients at once, each on a
// connection of its own because a failure closes it. 429 bounds them; meanwhile the right token is served,
// the probe succeeds, and availability stays true.
func guess(t *testing.T, c *harness.Companion) {
	baseURL, token := c.Endpoint()
	address := host(t, baseURL)
	control := controlsock.Dial(filepath.Join(c.RunTime(), "control.sock"))
	watching, stop := context.WithCancel(t.Context())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		_ = control.Watch(watching, func(s messages.Status) error {
			if !s.CompanionAvailable {
				t.Errorf("got unavailable with %s, want available", s.Reason)
			}
			return nil
		})
	}()
	defer func() { stop(); <-watched }()
	healthy := func() time.Time {
		status, err := control.Status(t.Context())
		if err != nil || status.Facts.LastHealth == nil {
			t.Fatalf("got no time of the last successful check (%v), want one", err)
		}
		return *status.Facts.LastHealth
	}
	began, refused := time.Now(), 0
	for _, guessers := range []int{1, 50} {
		var bounded atomic.Int64 // when a guess was first answered 429
		verdicts := map[int]int{}
		var mu sync.Mutex
		var all sync.WaitGroup
		for range guessers {
			all.Go(func() {
				for range guesses / guessers {
					status, err := guessOnce(address)
					if err != nil {
						t.Error(err)
						return
					}
					if status == http.StatusTooManyRequests {
						bounded.CompareAndSwap(0, time.Now().UnixNano())
					}
					mu.Lock()
					verdicts[status]++
					mu.Unlock()
				}
			})
		}
		defer all.Wait()
		done := make(chan struct{})
		go func() { all.Wait(); close(done) }()
		good, beats, last := 0, 0, healthy()
		for running := true; running; {
			select {
			case <-done:
				running = false
			case <-time.After(200 * time.Millisecond):
			}
			a := send(t, address, "GET /v1/models HTTP/1.1\r\nHost: "+address+"\r\nAuthorization: Bearer "+token+"\r\nConnection: close\r\n\r\n")
			if a.status != http.StatusOK {
				t.Fatalf("the right token: got %d, want 200: %s", a.status, a.body)
			}
			good++
			if at := healthy(); running && at.After(last) && bounded.Load() != 0 && at.UnixNano() > bounded.Load() {
				beats, last = beats+1, at
			}
		}
		if verdicts[401]+verdicts[429] != guesses || verdicts[429] == 0 {
			t.Errorf("%d guesses: got verdicts %v, want 401 and then 429", guesses, verdicts)
		}
		if beats == 0 {
			t.Error("no probe succeeded while wrong tokens were refused, want some")
		}
		refused += verdicts[401]
		t.Logf("%d guessers: %v to guesses; meanwhile %d times 200 to the right token, and %d looks saw a newer success of the probe", guessers, verdicts, good, beats)
	}
	if most := 600 * (1 + int(time.Since(began)/time.Minute)); refused > most {
		t.Errorf("got 401 for %d guesses, want at most %d", refused, most)
	}
	after := time.Now()
	c.Await("probed after the guesses", time.Minute, func(s messages.Status) bool {
		return s.Facts.LastHealth != nil && s.Facts.LastHealth.After(after)
	})
}

// guessOnce tries a wrong token. It resets the connection at the end: ten thousand connections in TIME_WAIT
// would use up the ports of the machine.
func guessOnce(address string) (status int, err error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return 0, fmt.Errorf("guessing: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return 0, fmt.Errorf("guessing: %w", err)
	}
	if _, err := io.WriteString(conn, "GET /v1/models HTTP/1.1\r\nHost: "+address+"\r\nAuthorization: Bearer "+strings.Repeat("A", 43)+"\r\n\r\n"); err != nil {
		return 0, fmt.Errorf("guessing: %w", err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, fmt.Errorf("reading the answer to a guess: %w", err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return 0, fmt.Errorf("reading the answer to a guess: %w", err)
	}
	return answer.StatusCode, conn.(*net.TCPConn).SetLinger(0)
}
