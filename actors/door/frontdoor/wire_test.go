package frontdoor

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"companion/messages"
)

// L3, L3a, L4: each attack as bytes on the wire, with the right token, so that the token refuses
// nothing here. Every answer ends its connection.
func TestRawRequests(t *testing.T) {
	r := start(t, llama(t), nil)
	good := r.request("GET", "/v1/models", "")
	post := r.request("POST", "/v1/chat/completions", chatBody)
	swap := func(s, old, new string) string {
		if !strings.Contains(s, old) {
			t.Fatalf("got %q, want it to contain %q", s, old)
		}
		return strings.Replace(s, old, new, 1)
	}
	host := "Host: " + r.address + "\r\n"
	line := "GET /v1/models HTTP/1.1"
	with := func(header string) string { return swap(good, host, host+header+"\r\n") }
	for name, c := range map[string]struct {
		raw  string
		want messages.Reason
	}{
		"absolute form":           {swap(good, line, "GET http://"+r.address+"/v1/models HTTP/1.1"), messages.ReasonMalformedRequest},
		"absolute form, evil":     {swap(swap(good, line, "GET http://"+r.address+"/v1/models HTTP/1.1"), host, "Host: evil.example\r\n"), messages.ReasonMalformedRequest},
		"authority form":          {swap(good, line, "CONNECT "+r.address+" HTTP/1.1"), messages.ReasonMalformedRequest},
		"options star":            {swap(good, line, "OPTIONS * HTTP/1.1"), messages.ReasonMalformedRequest},
		"get star":                {swap(good, line, "GET * HTTP/1.1"), messages.ReasonMalformedRequest},
		"HTTP/1.0":                {swap(good, "HTTP/1.1", "HTTP/1.0"), messages.ReasonMalformedRequest},
		"HTTP/1.2":                {swap(good, "HTTP/1.1", "HTTP/1.2"), messages.ReasonMalformedRequest},
		"HTTP/2.0":                {swap(good, "HTTP/1.1", "HTTP/2.0"), messages.ReasonMalformedRequest},
		"HTTP/0.9":                {"GET /v1/models\r\n\r\n", messages.ReasonMalformedRequest},
		"HTTP/2 preface":          {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", messages.ReasonMalformedRequest},
		"TLS":                     {"\x16\x03\x01\x02\x00\x01\x00", messages.ReasonMalformedRequest},
		"encoded path":            {swap(good, "/v1/models", "/v1/%6dodels"), messages.ReasonMalformedRequest},
		"encoded slash":           {swap(good, "/v1/models", "/v1%2fmodels"), messages.ReasonMalformedRequest},
		"dotted path":             {swap(good, "/v1/models", "/v1/../v1/models"), messages.ReasonMalformedRequest},
		"single dot":              {swap(good, "/v1/models", "/v1/./models"), messages.ReasonMalformedRequest},
		"double slash and dots":   {swap(good, "/v1/models", "//../v1/models"), messages.ReasonMalformedRequest},
		"backslash":               {swap(good, "/v1/models", `/v1\models`), messages.ReasonMalformedRequest},
		"fragment":                {swap(good, "/v1/models", "/v1/models#x"), messages.ReasonMalformedRequest},
		"relative path":           {swap(good, "/v1/models", "v1/models"), messages.ReasonMalformedRequest},
		"upgrade":                 {with("Connection: Upgrade\r\nUpgrade: websocket"), messages.ReasonMalformedRequest},
		"h2c without settings":    {with("Connection: Upgrade\r\nUpgrade: h2c"), messages.ReasonMalformedRequest},
		"h2c with two settings":   {with("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nHTTP2-Settings: AA"), messages.ReasonMalformedRequest},
		"h2c and another":         {with("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c, websocket\r\nHTTP2-Settings: AA"), messages.ReasonMalformedRequest},
		"two upgrades":            {with("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nUpgrade: h2c\r\nHTTP2-Settings: AA"), messages.ReasonMalformedRequest},
		"settings alone":          {with("Connection: HTTP2-Settings\r\nHTTP2-Settings: AA"), messages.ReasonMalformedRequest},
		"TLS upgrade":             {with("Connection: Upgrade\r\nUpgrade: TLS/1.3"), messages.ReasonMalformedRequest},
		"length and chunked":      {swap(post, "Content-Type", "Transfer-Encoding: chunked\r\nContent-Type"), messages.ReasonMalformedRequest},
		"two lengths":             {swap(post, "Content-Type", fmt.Sprintf("Content-Length: %d\r\nContent-Type", len(chatBody))), messages.ReasonMalformedRequest},
		"two codings":             {swap(post, "Content-Length: 45", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), messages.ReasonMalformedRequest},
		"a coding not known":      {swap(post, "Content-Length: 45", "Transfer-Encoding: gzip, chunked"), messages.ReasonMalformedRequest},
		"identity":                {swap(post, "Content-Length: 45", "Transfer-Encoding: identity"), messages.ReasonMalformedRequest},
		"length with a sign":      {swap(post, "Content-Length: 45", "Content-Length: +45"), messages.ReasonMalformedRequest},
		"negative length":         {swap(post, "Content-Length: 45", "Content-Length: -1"), messages.ReasonMalformedRequest},
		"length list":             {swap(post, "Content-Length: 45", "Content-Length: 45, 45"), messages.ReasonMalformedRequest},
		"huge length":             {swap(post, "Content-Length: 45", "Content-Length: 99999999999999999999"), messages.ReasonMalformedRequest},
		"get with a body":         {with("Content-Length: 2") + "{}", messages.ReasonMalformedRequest},
		"get with chunks":         {with("Transfer-Encoding: chunked") + "0\r\n\r\n", messages.ReasonMalformedRequest},
		"folded header":           {with("X-A: b\r\n c"), messages.ReasonMalformedRequest},
		"blank before colon":      {with("X-A : b"), messages.ReasonMalformedRequest},
		"no colon":                {with("nothing"), messages.ReasonMalformedRequest},
		"empty name":              {with(": b"), messages.ReasonMalformedRequest},
		"bare line feeds":         {strings.ReplaceAll(good, "\r\n", "\n"), messages.ReasonMalformedRequest},
		"one bare line feed":      {with("X-A: b\nX-C: d"), messages.ReasonMalformedRequest},
		"bare carriage return":    {with("X-A: b\rX-C: d"), messages.ReasonMalformedRequest},
		"NUL":                     {with("X-A: b\x00"), messages.ReasonMalformedRequest},
		"leading empty line":      {"\r\n" + good, messages.ReasonMalformedRequest},
		"two blanks":              {swap(good, "GET /", "GET  /"), messages.ReasonMalformedRequest},
		"tab":                     {swap(good, "GET /", "GET\t/"), messages.ReasonMalformedRequest},
		"unknown expectation":     {with("Expect: 200-maybe"), messages.ReasonMalformedRequest},
		"head too long":           {with("X-A: " + strings.Repeat("b", 17<<10)), messages.ReasonMalformedRequest},
		"endless head":            {"GET /" + strings.Repeat("a", 17<<10), messages.ReasonMalformedRequest},
		"two authorizations":      {with("Authorization: Bearer " + token), messages.ReasonMalformedRequest},
		"both credentials":        {with("x-api-key: " + token + "x"), messages.ReasonMalformedRequest},
		"OPTIONS":                 {swap(good, "GET", "OPTIONS"), messages.ReasonMethodNotAllowed},
		"preflight":               {swap(with("Origin: https://evil.example\r\nAccess-Control-Request-Method: POST"), "GET", "OPTIONS"), messages.ReasonMethodNotAllowed},
		"DELETE":                  {swap(good, "GET", "DELETE"), messages.ReasonMethodNotAllowed},
		"PUT":                     {swap(good, "GET", "PUT"), messages.ReasonMethodNotAllowed},
		"DELETE without Host":     {swap(swap(good, "GET", "DELETE"), host, ""), messages.ReasonMethodNotAllowed},
		"no Host":                 {swap(good, host, ""), messages.ReasonHostNotAllowed},
		"empty Host":              {swap(good, host, "Host: \r\n"), messages.ReasonHostNotAllowed},
		"two Hosts":               {swap(good, host, host+host), messages.ReasonHostNotAllowed},
		"two Hosts, in any case":  {swap(good, host, host+strings.ToUpper(host)), messages.ReasonHostNotAllowed},
		"evil Host":               {swap(good, host, "Host: evil.example\r\n"), messages.ReasonHostNotAllowed},
		"evil Host with our port": {swap(good, "Host: 127.0.0.1", "Host: evil.example"), messages.ReasonHostNotAllowed},
		"Host with a path":        {swap(good, host, "Host: "+r.address+"/\r\n"), messages.ReasonHostNotAllowed},
		"Host without port":       {swap(good, host, "Host: 127.0.0.1\r\n"), messages.ReasonHostNotAllowed},
		"Host in decimal":         {swap(good, "Host: 127.0.0.1", "Host: 2130706433"), messages.ReasonHostNotAllowed},
		"Host mapped to six":      {swap(good, "Host: 127.0.0.1", "Host: [::ffff:127.0.0.1]"), messages.ReasonHostNotAllowed},
		"Host not ASCII":          {swap(good, "Host: 127.0.0.1", "Host: 127。0.0.1"), messages.ReasonHostNotAllowed},
		"cross-site fetch":        {with("Sec-Fetch-Site: cross-site"), messages.ReasonCrossSiteForbidden},
		"same-site fetch":         {with("Sec-Fetch-Site: same-site"), messages.ReasonCrossSiteForbidden},
		"evil origin":             {with("Origin: https://evil.example"), messages.ReasonCrossSiteForbidden},
		"null origin":             {with("Origin: null"), messages.ReasonCrossSiteForbidden},
		"two origins":             {with("Origin: http://" + r.address + "\r\nOrigin: http://" + r.address), messages.ReasonCrossSiteForbidden},
		"cross-site post":         {swap(post, "Content-Type", "Origin: https://evil.example\r\nContent-Type"), messages.ReasonCrossSiteForbidden},
		"token in the query":      {swap(swap(good, "Authorization: Bearer "+token+"\r\n", ""), "/v1/models", "/v1/models?api_key="+token), messages.ReasonMissingToken},
		"token in a cookie":       {swap(good, "Authorization: Bearer ", "Cookie: token="), messages.ReasonMissingToken},
		"token in the body":       {strings.Replace(swap(post, "Authorization: Bearer "+token+"\r\n", ""), `"hi"`, `"`+token[:2]+`"`, 1), messages.ReasonMissingToken},
		"empty token":             {swap(good, token, ""), messages.ReasonMissingToken},
		"wrong token":             {swap(good, token, token+"x"), messages.ReasonInvalidToken},
	} {
		a := r.one(c.raw)
		status := 403
		if c.want == messages.ReasonMissingToken || c.want == messages.ReasonInvalidToken {
			status = 401
		}
		if a.status != status || a.code() != c.want || !a.closed {
			t.Errorf("%s: want %s, got %+v", name, c.want, a)
		}
		for field := range a.header {
			if strings.HasPrefix(field, "Access-Control-") {
				t.Errorf("%s: got the header %s, want no Access-Control header", name, field)
			}
		}
	}
	for name, raw := range map[string]string{"plain": good, "localhost": swap(good, "127.0.0.1", "localhost"), "LOCALHOST": swap(good, "127.0.0.1", "LOCALHOST"), "post": post,
		"own origin": with("Origin: http://" + r.address), "x-api-key": swap(good, "Authorization: Bearer", "x-api-key:"), "expect": swap(post, "Content-Type", "Expect: 100-continue\r\nContent-Type")} {
		all := r.raw(raw)
		if last := all[len(all)-1]; last.status != 200 || last.closed {
			t.Errorf("%s: got %+v, want 200 and an open connection last", name, all)
		}
	}
}

// L3a: pipelined requests are framed and checked one by one. After a bad one, the following bytes are not parsed.
func TestPipelined(t *testing.T) {
	r := start(t, llama(t), nil)
	good, post := r.request("GET", "/v1/models", ""), r.request("POST", "/v1/chat/completions", chatBody)
	evil := strings.Replace(good, "Host: 127.0.0.1", "Host: evil.example", 1)
	absolute := strings.Replace(good, "GET /", "GET http://"+r.address+"/", 1)
	chunked := r.request("POST", "/v1/chat/completions", "", "Content-Type: application/json", "Transfer-Encoding: chunked") +
		fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(chatBody), chatBody)
	for name, c := range map[string]struct {
		raw  string
		want []int
	}{
		"two good":             {good + good, []int{200, 200}},
		"three kinds":          {post + good + post, []int{200, 200, 200}},
		"second evil":          {good + evil + good, []int{200, 403}},
		"second evil, post":    {post + evil + good, []int{200, 403}},
		"second absolute":      {good + absolute + good, []int{200, 403}},
		"first absolute":       {absolute + good, []int{403}},
		"body holds a request": {r.request("POST", "/v1/chat/completions", good), []int{400}},
		"after chunks":         {chunked + good, []int{200}}, // never framed, so never answered
		"smuggled":             {strings.Replace(chunked, "Transfer-Encoding", "Content-Length: 4\r\nTransfer-Encoding", 1) + good, []int{403}},
	} {
		var got []int
		for _, a := range r.raw(c.raw) {
			got = append(got, a.status)
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

// L3a: however the bytes arrive, the verdict is the same.
func TestByteByByte(t *testing.T) {
	r := start(t, llama(t), nil)
	for raw, want := range map[string]int{
		r.request("POST", "/v1/chat/completions", chatBody):                                                    200,
		strings.Replace(r.request("GET", "/v1/models", ""), "Host: 127.0.0.1", "Host: evil", 1):                403,
		strings.Replace(r.request("GET", "/v1/models", ""), "GET /", "GET http://"+r.address+"/", 1):           403,
		r.request("POST", "/v1/chat/completions", chatBody) + r.request("GET", "/v1/models", "", "Upgrade: x"): 200,
	} {
		c, err := net.Dial("tcp", r.address)
		if err != nil {
			t.Fatal(err)
		}
		for i := range len(raw) {
			if _, err := io.WriteString(c, raw[i:i+1]); err != nil {
				break // refused before it was whole
			}
		}
		head := make([]byte, 12)
		_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
		_, err = io.ReadFull(c, head)
		if want := fmt.Sprintf("HTTP/1.1 %d", want); err != nil || string(head) != want {
			t.Errorf("got %q (%v), want %s", head, err, want)
		}
		c.Close()
	}
}

// L3: a refused request with a body that never comes does not hold its connection.
func TestRefusedBodyDoesNotHold(t *testing.T) {
	r := start(t, llama(t), nil)
	begin := time.Now()
	promise := "POST /v1/chat/completions HTTP/1.1\r\nHost: " + r.address + "\r\nAuthorization: Bearer wrong\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
	if a := r.one(promise); a.status != 401 || !a.closed {
		t.Errorf("got %+v, want 401 and a closed connection", a)
	}
	if a := r.one(promise + strings.Repeat("x", 1000000)); a.status != 401 {
		t.Errorf("with the whole body: got %+v, want 401", a)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("took %v, want at most 3s", took)
	}
}

// T3, L3, A4: ten thousand wrong guesses, from one and from many connections, cost the owner of the
// right token and the probe nothing.
func TestGuesses(t *testing.T) {
	if testing.Short() {
		t.Log("with a tenth of the guesses")
	}
	r := start(t, llama(t), nil)
	guesses := 10000
	if testing.Short() {
		guesses /= 10
	}
	done := make(chan map[int]int)
	for range 4 {
		go func() {
			seen := map[int]int{}
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			for range guesses / 4 {
				req, _ := http.NewRequest("GET", "http://"+r.address+"/v1/models", nil)
				req.Header.Set("Authorization", "Bearer guess")
				resp, err := client.Do(req)
				if err != nil {
					continue
				}
				resp.Body.Close()
				seen[resp.StatusCode]++
			}
			done <- seen
		}()
	}
	all, slowest := map[int]int{}, time.Duration(0)
	for left := 4; left > 0; {
		select {
		case seen := <-done:
			left--
			for status, n := range seen {
				all[status] += n
			}
		default:
			begin := time.Now()
			if a := r.one(strings.Replace(r.request("GET", "/v1/models", "", "Connection: close"), token, probeToken, 1)); a.status != 200 {
				t.Fatalf("the probe: got %+v, want 200", a)
			}
			if a := r.one(r.request("POST", "/v1/chat/completions", chatBody, "Connection: close")); a.status != 200 {
				t.Fatalf("the owner: got %+v, want 200", a)
			}
			slowest = max(slowest, time.Since(begin))
			time.Sleep(150 * time.Millisecond) // stays within its own window
		}
	}
	if all[401] != 600 || all[200] != 0 || all[429] == 0 {
		t.Errorf("got statuses %v, want 600 times 401, 429 for the rest, no 200", all)
	}
	t.Logf("guesses answered %v; slowest pair of good requests %v", all, slowest)
}

// A4: a user who spends the whole window does not make the runtime look unhealthy.
func TestSpentWindow(t *testing.T) {
	r := start(t, llama(t), func(d *Deps) { d.Bounds.RatePerMinute = 3 })
	for i := range 5 {
		want := 200
		if i >= 3 {
			want = 429
		}
		if a := r.one(r.request("GET", "/v1/models", "")); a.status != want || want == 429 && (a.code() != messages.ReasonRateLimited || a.header.Get("Retry-After") == "") {
			t.Errorf("request %d: got %+v, want %d, with 429 rate_limited and Retry-After", i, a, want)
		}
	}
	if a := r.one(strings.Replace(r.request("GET", "/v1/models", ""), token, probeToken, 1)); a.status != 200 {
		t.Errorf("the probe: got %+v, want 200", a)
	}
}

// RFC 9110: every refusal that a raw request can cause is a whole answer of the kind that its status and the
// request's method ask for: no content for HEAD, otherwise the OpenAI error with its exact length; a date;
// WWW-Authenticate with 401 (15.5.2), Allow with 405 (15.5.6), Retry-After with 429 and 503; and the
// connection is closed if the answer says so.
func TestRefusalsFollowRFC9110(t *testing.T) {
	r := start(t, llama(t), nil)
	auth := "Authorization: Bearer " + token + "\r\n"
	host := "Host: " + r.address + "\r\n"
	seen := map[int]bool{}
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "OPTIONS", "TRACE", "CONNECT", "DELETE", "PATCH", "head"} {
		for name, head := range map[string]string{
			"no host":           "/v1/models HTTP/1.1\r\n" + auth,
			"foreign host":      "/v1/models HTTP/1.1\r\nHost: evil.example\r\n" + auth,
			"foreign origin":    "/v1/models HTTP/1.1\r\n" + host + auth + "Origin: http://evil.example\r\n",
			"no token":          "/v1/models HTTP/1.1\r\n" + host,
			"wrong token":       "/v1/models HTTP/1.1\r\n" + host + "Authorization: Bearer x\r\n",
			"unknown path":      "/v1/nothing HTTP/1.1\r\n" + host + auth,
			"encoded path":      "/v1/%6dodels HTTP/1.1\r\n" + host + auth,
			"HTTP/1.0":          "/v1/models HTTP/1.0\r\n" + host + auth,
			"HTTP/2":            "/v1/models HTTP/2.0\r\n" + host + auth,
			"authority form":    "127.0.0.1:1 HTTP/1.1\r\n" + host + auth,
			"absolute form":     "http://evil.example/ HTTP/1.1\r\n" + host + auth,
			"asterisk form":     "* HTTP/1.1\r\n" + host + auth,
			"upgrade":           "/v1/models HTTP/1.1\r\n" + host + auth + "Upgrade: websocket\r\n",
			"no colon":          "/v1/models HTTP/1.1\r\n" + host + auth + "nothing\r\n",
			"two lengths":       "/v1/chat/completions HTTP/1.1\r\n" + host + auth + "Content-Length: 1\r\nContent-Length: 2\r\n",
			"too long a head":   "/v1/models HTTP/1.1\r\n" + host + auth + "A: " + strings.Repeat("a", 20<<10) + "\r\n",
			"unread body":       "/v1/nothing HTTP/1.1\r\n" + host + auth + "Content-Length: 5\r\n",
			"body too large":    "/v1/chat/completions HTTP/1.1\r\n" + host + auth + "Content-Type: application/json\r\nContent-Length: 99999999\r\n",
			"not JSON":          "/v1/chat/completions HTTP/1.1\r\n" + host + auth + "Content-Type: text/plain\r\nContent-Length: 1\r\n",
			"bad expectation":   "/v1/chat/completions HTTP/1.1\r\n" + host + auth + "Expect: tea\r\nContent-Length: 1\r\n",
			"waits for consent": "/v1/nothing HTTP/1.1\r\n" + host + auth + "Expect: 100-continue\r\nContent-Length: 5\r\n",
		} {
			what := method + ", " + name
			c, err := net.Dial("tcp", r.address)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, method+" "+head+"\r\n")
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			in := bufio.NewReader(c)
			resp, err := http.ReadResponse(in, &http.Request{Method: method})
			if err != nil {
				t.Fatalf("%s: got no answer: %v", what, err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Errorf("%s: got content that is shorter than announced: %v", what, err)
			}
			seen[resp.StatusCode] = true
			var problem struct{ Error struct{ Code string } }
			switch {
			case resp.StatusCode < 400:
				t.Errorf("%s: got status %d, want a refusal", what, resp.StatusCode)
			case method == "HEAD" && (len(body) > 0 || resp.Header.Get("Content-Length") != ""):
				t.Errorf("%s: got length %q and content %q, want neither", what, resp.Header.Get("Content-Length"), body)
			case method != "HEAD" && (json.Unmarshal(body, &problem) != nil || problem.Error.Code == "" || resp.ContentLength != int64(len(body))):
				t.Errorf("%s: got length %d and content %q, want an error object of that length", what, resp.ContentLength, body)
			}
			if _, err := http.ParseTime(resp.Header.Get("Date")); err != nil {
				t.Errorf("%s: got date %q, want one of RFC 9110", what, resp.Header.Get("Date"))
			}
			for status, field := range map[int]string{401: "Www-Authenticate", 405: "Allow", 429: "Retry-After", 503: "Retry-After"} {
				if got := resp.Header.Get(field); resp.StatusCode == status && got == "" {
					t.Errorf("%s: got %d without %s, want the field", what, status, field)
				}
			}
			if resp.Close {
				// After the announced end nothing comes, a second answer or the content of this one least of all.
				if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
					t.Errorf("%s: got %q, %v behind the last answer, want the end", what, rest, err)
				}
			}
			c.Close()
		}
	}
	for _, status := range []int{400, 401, 403, 404, 413} {
		if !seen[status] {
			t.Errorf("got no answer with status %d, want one: this test must see each", status)
		}
	}
}
