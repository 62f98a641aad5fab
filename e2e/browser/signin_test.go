package browser

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"companion/adapters/authority/keychain"
	"companion/e2e/harness"
)

// O3, O10: a person signs in with a real browser. A hostile page that knows the address of the attempt
// cannot spend it, the hub's form works with the wrong and with the right password, and the page at the
// end says so, is static, and may do nothing.
func TestSignIn(t *testing.T) {
	hub := harness.NewHub(t)
	hub.Stop()
	serveForm(t, hub)
	c := hub.Companion("")
	c.Start()
	b := chromium(t, chromedp.Flag("ignore-certificate-errors-spki-list", keyOf(t, hub)))
	login, address := beginLogin(t, c)

	b.do("opening the attacking page", chromedp.Navigate(at("http://hostile.example:%d/")(pageServer(t), 0)))
	for _, name := range []string{"fetch", "no-cors fetch", "image", "script", "iframe", "prefetch"} {
		if learned := evaluate[string](b, `pry(`+quote(t, name)+`, `+quote(t, address)+`)`); learned != "" {
			t.Errorf("%s of the start page: the attacker's page learned %q, want nothing", name, learned)
		}
	}

	b.do("opening the sign-in page", chromedp.Navigate(address), chromedp.WaitVisible(chromedp.CSS("button[type=submit]")))
	if at := evaluate[string](b, "location.origin"); at != hub.URL {
		t.Fatalf("the sign-in page is at %s, want %s", at, hub.URL)
	}
	b.picture("hub")
	b.signIn("not " + password(t, hub))
	b.do("waiting for the form again", chromedp.WaitVisible(chromedp.CSS("[role=alert]")))
	b.picture("hub-wrong-password")

	documents := chromedp.Events(b.ctx, network.ResponseReceived)
	b.signIn(password(t, hub))
	page := callbackPage(t, documents)
	if code, output := login.end(); code != 0 || !strings.Contains(output, "Signed in as") {
		t.Errorf("login ended with code %d, want 0 and Signed in as:\n%s", code, output)
	}
	b.do("waiting for the page after the callback", chromedp.WaitVisible(chromedp.CSS("h1")))
	b.picture("callback")
	checkCallbackPage(t, b, page)
	if who := c.Must("whoami", "--json"); !strings.Contains(who, harness.User) {
		t.Errorf("whoami says %s, want %s", who, harness.User)
	}
	checkHistory(t, b, c, page.URL)
}

// checkHistory searches what the browser keeps on disk (J4, T12). The history contains the callback with its code, as in every
// flow of this kind (RFC 8252 section 8.1): the code is spent, and without the verifier the hub refuses it. No token is there.
func checkHistory(t *testing.T, b *tab, c *harness.Companion, callback string) {
	t.Helper()
	if err := chromedp.Cancel(b.ctx); err != nil { // the browser writes its files
		t.Fatalf("closing the browser: %v", err)
	}
	secrets := map[string]string{}
	for _, account := range []keychain.Account{keychain.AccessToken, keychain.RefreshToken, keychain.LoopbackToken} {
		secret, found := c.Secret(account)
		if !found {
			t.Fatalf("the keychain: got no %s, want one", account)
		}
		secrets[string(account)] = secret
	}
	u, err := url.Parse(callback)
	if err != nil {
		t.Fatal(err)
	}
	history := 0
	err = filepath.WalkDir(b.profile, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for what, secret := range secrets {
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("the browser's file %[2]s: got the %[1]s in it, want none", what, strings.TrimPrefix(name, b.profile))
			}
		}
		if entry.Name() == "History" && bytes.Contains(data, []byte(u.Query().Get("code"))) {
			history++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if history == 0 {
		t.Error("the browser's history: got no callback, want it: this test looks at the wrong files")
	}
	thief, err := c.Hub.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer thief.CloseIdleConnections()
	u.RawQuery, callback = "", u.Query().Get("code")
	answer, err := thief.PostForm(c.Hub.URL+"/api/v1/auth/native/token", url.Values{
		"grant_type": {"authorization_code"}, "code": {callback}, "redirect_uri": {u.String()}, "client_id": {clientOf(t, c)},
		"code_verifier": {strings.Repeat("v", 43)},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusBadRequest {
		t.Errorf("the code of the history, sent to the hub: got status %d, want 400", answer.StatusCode)
	}
}

// clientOf is the client id of the session, which the history contains too.
func clientOf(t *testing.T, c *harness.Companion) string {
	t.Helper()
	raw, _ := c.Secret(keychain.SessionMetadata)
	match := regexp.MustCompile(`"clientId":"([^"]+)"`).FindStringSubmatch(raw)
	if match == nil {
		t.Fatalf("the session's metadata: got %s, want a client id", raw)
	}
	return match[1]
}

// signIn fills in the hub's form and sends it.
func (b *tab) signIn(password string) {
	b.t.Helper()
	b.do("filling in the form",
		chromedp.SetValue(chromedp.CSS("input[name=user]"), harness.User),
		chromedp.SendKeys(chromedp.CSS("input[name=password]"), password),
		chromedp.Click(chromedp.CSS("button[type=submit]")))
}

// callbackPage waits for the answer of the redirect listener.
func callbackPage(t *testing.T, responses func(func(network.EventResponseReceived, error) bool)) *network.Response {
	t.Helper()
	for event, err := range responses {
		if err != nil {
			t.Fatalf("waiting for the page after the callback: %v", err)
		}
		if event.Type == network.ResourceTypeDocument && strings.HasPrefix(event.Response.URL, "http://127.0.0.1:") {
			return event.Response
		}
	}
	t.Fatal("the browser ended")
	return nil
}

// checkCallbackPage checks the page as the browser has it: its text, that it contains nothing of the request,
// and that its policy blocks injected content.
func checkCallbackPage(t *testing.T, b *tab, page *network.Response) {
	t.Helper()
	if page.Status != 200 {
		t.Errorf("the page after the callback has status %d, want 200", page.Status)
	}
	var policy string
	for name, value := range page.Headers {
		if strings.EqualFold(name, "Content-Security-Policy") {
			policy, _ = value.(string)
		}
	}
	if !strings.Contains(policy, "default-src 'none'") {
		t.Errorf("its policy is %q, want default-src 'none'", policy)
	}
	text := evaluate[string](b, "document.body.innerText")
	if !strings.Contains(text, "You are signed in") || !strings.Contains(text, "You can close this window") {
		t.Errorf("it says %q, want that the user is signed in and can close the window", text)
	}
	html := evaluate[string](b, "document.documentElement.outerHTML")
	callback, err := url.Parse(page.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"code", "state", "iss"} {
		value := callback.Query().Get(name)
		if value == "" || strings.Contains(html, value) || strings.Contains(html, url.QueryEscape(value)) {
			t.Errorf("the callback's %s is missing or shown in the page, want it only in the address", name)
		}
	}
	blocked := evaluate[[]string](b, injection)
	for _, directive := range []string{"connect-src", "form-action", "frame-src", "img-src", "script-src-elem", "style-src-elem"} {
		if !strings.Contains(" "+strings.Join(blocked, " ")+" ", " "+directive+" ") {
			t.Errorf("its policy stops %[2]v, want also %[1]s", directive, blocked)
		}
	}
}

// injection tries what a page with injected content could do, and resolves with the directives that blocked
// it.
const injection = `new Promise((resolve) => {
  const blocked = new Set();
  addEventListener("securitypolicyviolation", (v) => blocked.add(v.effectiveDirective));
  const put = (name, set) => document.body.append(Object.assign(document.createElement(name), set));
  put("script", { textContent: "window.ran = true" });
  put("style", { textContent: "body { color: red }" });
  put("img", { src: "http://127.0.0.1:1/" });
  put("iframe", { src: "http://127.0.0.1:1/" });
  put("form", { action: "http://127.0.0.1:1/", id: "f" });
  document.getElementById("f").submit();
  fetch("http://127.0.0.1:1/").catch(() => {});
  setTimeout(() => resolve([...blocked]), 300);
})`

var startPage = regexp.MustCompile(`http://127\.0\.0\.1:\d+/\S+`)

// beginLogin runs login --no-browser and returns the address that it prints.
func beginLogin(t *testing.T, c *harness.Companion) (*child, string) {
	t.Helper()
	var env []string
	for _, place := range []string{"CONFIG_HOME=config", "DATA_HOME=data", "STATE_HOME=state", "CACHE_HOME=cache", "RUNTIME_DIR=run"} {
		name, dir, _ := strings.Cut(place, "=")
		env = append(env, "XDG_"+name+"="+filepath.Join(c.Home, dir))
	}
	login := start(t, "companion", c.Home, env, "login", "--no-browser")
	for login.lines.Scan() {
		if address := startPage.FindString(login.lines.Text()); address != "" {
			return login, address
		}
	}
	t.Fatal("login printed no address")
	return nil, ""
}

// serveForm restarts the hub with its sign-in form.
func serveForm(t *testing.T, hub *harness.Hub) {
	t.Helper()
	again := start(t, "devhub", filepath.Dir(hub.Dir), nil, "serve", "--dir", hub.Dir)
	for again.lines.Scan() {
		if json.Unmarshal(again.lines.Bytes(), hub) == nil {
			return
		}
	}
	t.Fatal("the hub did not start again")
}

// child is a program that ends with the test or with the test binary.
type child struct {
	lines *bufio.Scanner // of its output and errors; read it to the end before waiting for the child's
	ended chan struct{}
	cmd   *exec.Cmd
}

func start(t *testing.T, program, home string, env []string, args ...string) *child {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), harness.Binary(t, program), args...)
	cmd.Env = append([]string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = in, in
	c := &child{cmd: cmd, lines: bufio.NewScanner(out), ended: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The parent-death signal follows this thread, which ends with the goroutine.
		runtime.LockOSThread()
		defer close(c.ended)
		err := cmd.Start()
		in.Close()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	t.Cleanup(func() {
		<-c.ended // the test's context has ended it
		out.Close()
	})
	if err := <-started; err != nil {
		t.Fatalf("starting %s: %v", program, err)
	}
	return c
}

// end waits for the program's end and returns its exit code and its output since the last read.
func (c *child) end() (code int, printed string) {
	var said []string
	for c.lines.Scan() {
		said = append(said, c.lines.Text())
	}
	<-c.ended
	return c.cmd.ProcessState.ExitCode(), strings.Join(said, "\n")
}

// keyOf is the digest of the hub's public key, the one key that the browser accepts without a known
// authority.
func keyOf(t *testing.T, hub *harness.Hub) string {
	t.Helper()
	client, err := hub.Client()
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Get(hub.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	defer answer.Body.Close()
	return digestOf(answer.TLS)
}

func digestOf(state *tls.ConnectionState) string {
	digest := sha256.Sum256(state.PeerCertificates[0].RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(digest[:])
}

func password(t *testing.T, hub *harness.Hub) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(hub.Dir, "users.json"))
	if err != nil {
		t.Fatal(err)
	}
	var users []struct{ ID, Password string }
	if err := json.Unmarshal(data, &users); err != nil {
		t.Fatal(err)
	}
	for _, u := range users {
		if u.ID == harness.User {
			return u.Password
		}
	}
	t.Fatalf("got no user %s from the hub, want one", harness.User)
	return ""
}

func quote(t *testing.T, s string) string {
	t.Helper()
	quoted, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(quoted)
}
