package e2e

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"companion/adapters/authority/keychain"
	"companion/e2e/harness"
	"companion/messages"
)

const plantedVariable = "planted variable"

// sighting is one place where a secret could appear: an output, a file, an argument list.
type sighting struct{ where, text string }

// canary collects secrets and the places to search for them.
type canary struct {
	t       *testing.T
	secrets map[string]string // by what they are
	seen    []sighting
}

func (c *canary) know(what, secret string) {
	c.t.Helper()
	if len(secret) < 8 {
		c.t.Fatalf("the %s is %q, want at least 8 bytes to search for", what, secret)
	}
	c.secrets[what] = secret
}

func (c *canary) look(where, text string) { c.seen = append(c.seen, sighting{where, text}) }

// run runs one command and searches all its output.
func (c *canary) run(house *harness.Companion, args ...string) harness.Result {
	c.t.Helper()
	r := house.Run(args...)
	c.look("output of "+args[0], r.Stdout+r.Stderr)
	return r
}

// process searches what the system shows of a process (C3, T12).
func (c *canary) process(name string, pid int) {
	c.t.Helper()
	for _, part := range []string{"cmdline", "environ", "comm"} {
		data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), part))
		if err != nil {
			// A process that is not dumpable (X8) shows its environment to no other process, which is the
			// best possible result.
			if part == "environ" && os.IsPermission(err) {
				continue
			}
			c.t.Errorf("looking at %s of %s: %v", part, name, err)
		}
		if part == "cmdline" && len(data) == 0 {
			c.t.Errorf("the argument list of %s is empty, want it: nothing was searched", name)
		}
		c.look(part+" of "+name, strings.ReplaceAll(string(data), "\x00", "\n"))
	}
}

// forms are the ways in which a secret may be written.
func forms(secret string) map[string]string {
	raw := []byte(secret)
	all := map[string]string{
		"plain": secret, "hex": hex.EncodeToString(raw), "HEX": strings.ToUpper(hex.EncodeToString(raw)),
		"url": url.QueryEscape(secret), "reversed": reversed(secret),
	}
	// Inside a longer text base64 begins at any of three offsets; the middle is the same for each.
	for offset := range 3 {
		encoded := base64.StdEncoding.EncodeToString(append(make([]byte, offset), raw...))
		middle := encoded[4 : len(encoded)-4]
		all["base64 at "+strconv.Itoa(offset)] = middle
		all["base64url at "+strconv.Itoa(offset)] = strings.NewReplacer("+", "-", "/", "_").Replace(middle)
	}
	quoted, _ := json.Marshal(secret)
	all["JSON"] = strings.Trim(string(quoted), `"`)
	return all
}

func reversed(s string) string {
	b := []byte(s)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return string(b)
}

// find returns what was found where, without the secret itself.
func (c *canary) find() []string {
	var found []string
	for what, secret := range c.secrets {
		for form, text := range forms(secret) {
			for _, s := range c.seen {
				if what == plantedVariable && (s.where == "environ of daemon" || s.where == "environ of command") {
					continue // that is where the test put it
				}
				if strings.Contains(s.text, text) {
					found = append(found, what+" ("+form+") in "+s.where)
				}
			}
		}
	}
	return found
}

// verifiers searches for a code verifier, which only the daemon and the hub's token endpoint know: any text
// whose digest is the challenge that the browser saw (O5).
func (c *canary) verifiers(challenge string) {
	candidate := regexp.MustCompile(`[A-Za-z0-9._~-]{43,128}`)
	for _, s := range c.seen {
		for _, text := range candidate.FindAllString(s.text, -1) {
			for start := 0; start+43 <= len(text); start++ {
				sum := sha256.Sum256([]byte(text[start : start+43]))
				if base64.RawURLEncoding.EncodeToString(sum[:]) == challenge {
					c.t.Errorf("the code verifier is in %s, want it in no output", s.where)
				}
			}
		}
	}
}

// J2, J4, T12, C3, rule 2: the whole chain at the most verbose level. Afterwards no secret is in a log, an
// output, an error, an argument list, an environment or a file, plain or encoded.
func TestCanary(t *testing.T) {
	c := &canary{t: t, secrets: map[string]string{}}
	house := harness.RealHub(t).Companion("[log]\nlevel = \"debug\"\n")
	const planted = "planted-in-the-environment-7f3a"
	house.Extra = []string{"OPENAI_API_KEY=" + planted, "HTTPS_PROXY_PASSWORD=" + planted, "LLAMA_ARG_API_KEY=" + planted}
	c.know(plantedVariable, planted)
	daemon := house.Start()
	watch := house.Watch()

	login, visit := house.Login()
	if login.Code != 0 {
		t.Fatalf("signing in: got exit %d, want 0", login.Code)
	}
	c.look("output of login", login.Stdout)
	c.look("page after sign-in", visit.Page)
	c.look("first URL of sign-in", visit.URLs[0])
	challenge := c.learnRedirects(visit)

	status := watch.Await("available", harness.AvailableWithin, func(s messages.Status) bool { return s.CompanionAvailable })
	_, loopback := house.Endpoint()
	c.know("loopback token", loopback)
	learnSession(c, house)
	learnArtifacts(c, house)

	c.process("daemon", daemon.PID)
	c.process("runtime", status.Runtime.PID)
	c.process("command", watch.PID())
	watch.Close()
	status = exercise(c, house)
	c.look("status", mustJSON(t, status))
	// X9: the report that a person attaches to an issue.
	report := filepath.Join(t.TempDir(), "report.json")
	c.run(house, "doctor", "--bundle", report)
	told, err := os.ReadFile(report)
	if err != nil || !strings.Contains(string(told), `"log"`) {
		t.Errorf("report: got %d bytes, %v; want one with the log", len(told), err)
	}
	c.look("report", string(told))

	// A crash and a failing hub produce messages that normal use does not.
	watch = house.Watch()
	watch.Await("available", time.Minute, func(s messages.Status) bool { return s.CompanionAvailable })
	if err := syscall.Kill(status.Runtime.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	watch.Await("not available", time.Second, func(s messages.Status) bool { return !s.CompanionAvailable })
	again := watch.Await("available", time.Minute, func(s messages.Status) bool { return s.CompanionAvailable })
	c.look("status after a crash", mustJSON(t, again))
	house.Hub.Stop()
	c.run(house, "pull")
	c.run(house, "whoami")
	c.run(house, "logout")
	c.run(house, "restart")
	house.Stop()
	c.run(house, "status")
	c.run(house, "env")

	c.look("output of run", daemon.Output())
	if !strings.Contains(daemon.Output(), `"level":"debug"`) {
		t.Error("the daemon was not talkative: nothing was proven")
	}
	c.look("log", house.Log())
	logs := house.Run("logs", "--json")
	c.look("output of logs", logs.Stdout+logs.Stderr)
	c.files(house)
	c.verifiers(challenge)
	if len(c.secrets) != 13 {
		t.Errorf("searched for %d secrets, want the 13 of docs/security.md", len(c.secrets))
	}
	if found := c.find(); len(found) != 0 {
		t.Errorf("found secrets, want none:\n%s", strings.Join(found, "\n"))
	}

	// Check of the test itself: each secret is found when it is put into any of the sightings.
	for what, secret := range c.secrets {
		for form, text := range forms(secret) {
			probe := &canary{t: t, secrets: map[string]string{what: secret}, seen: []sighting{{"probe", "x" + text + "y"}}}
			if len(probe.find()) == 0 {
				t.Errorf("a %s, %s, is not found, want every form found", what, form)
			}
		}
	}
}

// learnRedirects collects from the browser's URLs what must stay between browser, hub and daemon.
func (c *canary) learnRedirects(visit harness.Visit) (challenge string) {
	c.t.Helper()
	for _, visited := range visit.URLs {
		u, err := url.Parse(visited)
		if err != nil {
			c.t.Fatal(err)
		}
		for name, what := range map[string]string{"state": "state", "code": "authorization code"} {
			if value := u.Query().Get(name); value != "" {
				c.know(what, value)
			}
		}
		if value := u.Query().Get("code_challenge"); value != "" {
			challenge = value
		}
	}
	if c.secrets["state"] == "" || c.secrets["authorization code"] == "" || challenge == "" {
		c.t.Fatalf("got no state, code or challenge in the browser's %d URLs, want each", len(visit.URLs))
	}
	return challenge
}

func learnSession(c *canary, house *harness.Companion) {
	c.t.Helper()
	for account, what := range map[keychain.Account]string{keychain.AccessToken: "access token", keychain.RefreshToken: "refresh token"} {
		secret, found := house.Secret(account)
		if !found {
			c.t.Fatalf("got no stored %s, want one", what)
		}
		c.know(what, secret)
	}
}

// learnArtifacts collects digests, URLs and paths of model and runtime from the data folder, where they
// belong.
func learnArtifacts(c *canary, house *harness.Companion) {
	c.t.Helper()
	model, err := os.ReadFile(harness.Parts(c.t).Model.File)
	if err != nil {
		c.t.Fatal(err)
	}
	sum := sha256.Sum256(model)
	c.know("model digest", hex.EncodeToString(sum[:]))
	c.know("download URL", house.Hub.Artifacts)
	c.know("folder of the models", filepath.Join(house.Data(), "models"))
	c.know("folder of the runtimes", filepath.Join(house.Data(), "runtimes"))
}

// exercise runs commands as people do, valid and invalid ones, and returns the status after them.
func exercise(c *canary, house *harness.Companion) messages.Status {
	c.t.Helper()
	note := filepath.Join(house.Home, "note.md")
	if err := os.WriteFile(note, []byte("A note."), 0o600); err != nil {
		c.t.Fatal(err)
	}
	for _, args := range [][]string{
		{"status"}, {"status", "--json"}, {"whoami"}, {"whoami", "--json"}, {"models"}, {"models", "--json"}, {"pull"},
		{"pull", "no-such-model"}, {"chat", "--max-tokens", "8", "One word."}, {"enrich", note}, {"lane", "--json"}, {"config", "show"},
		{"config", "check"}, {"version", "--json"}, {"stop"}, {"chat", "Nobody answers."}, {"start"},
	} {
		c.run(house, args...)
	}
	status := house.Available()
	baseURL, token := house.Endpoint()
	address := host(c.t, baseURL)
	converse(c, address, token)
	application := strings.TrimSpace(house.Must("token", "add", "canary"))
	c.know("application token", application)
	if a := send(c.t, address, post(address, "/v1/chat/completions", "x-api-key: "+application+"\r\n", `{"max_tokens":1,"messages":[{"role":"user","content":"One word."}]}`)); a.status != 200 {
		c.t.Errorf("the application: got %d, want 200", a.status)
	}
	c.run(house, "token", "list", "--json")
	for _, request := range []string{
		post(address, "/v1/chat/completions", "Authorization: Bearer "+token+"\r\n", `{"messages":[],"`+token+`":1}`),
		post(address, "/"+token, "Authorization: Bearer "+token+"\r\n", `{}`),
		post(address, "/v1/models", "x-api-key: "+token+"\r\nOrigin: http://"+token+"\r\n", `{}`),
	} {
		a := send(c.t, address, request)
		// The caller's own input may be named to the caller, and nowhere else.
		if a.status < 400 {
			c.t.Errorf("a bad request: got %d, want at least 400", a.status)
		}
	}
	return status
}

// converse has a private conversation, of which only the metadata may be logged (J2, L11).
func converse(c *canary, address, token string) {
	c.t.Helper()
	const prompt, header = "a heron stands in the private prompt", "a-heron-in-a-private-header"
	c.know("prompt", prompt)
	c.know("header", header)
	answer := send(c.t, address, post(address, "/v1/chat/completions",
		"Authorization: Bearer "+token+"\r\nX-Private: "+header+"\r\n",
		`{"max_tokens":4,"messages":[{"role":"user","content":"`+prompt+`"}]}`))
	if answer.status != 200 {
		c.t.Fatalf("the conversation: got %d, want 200", answer.status)
	}
}

// files searches every file that the companion left. Artifacts and signed metadata contain digests and URLs
// by design, so it searches them for tokens only.
func (c *canary) files(house *harness.Companion) {
	c.t.Helper()
	looked := 0
	for _, file := range harness.Files(c.t, house.Home) {
		if strings.HasPrefix(file, house.Data()) {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			continue // a socket
		}
		looked++
		c.look("file "+strings.TrimPrefix(file, house.Home), string(data))
	}
	if looked < 3 {
		c.t.Errorf("searched %d files, want at least 3", looked)
	}
	tokens := &canary{t: c.t, secrets: map[string]string{}}
	for _, what := range []string{"loopback token", "application token", "access token", "refresh token", "authorization code", "state"} {
		tokens.secrets[what] = c.secrets[what]
	}
	for _, file := range harness.Files(c.t, house.Data()) {
		if info, err := os.Stat(file); err != nil || info.Size() > 8<<20 {
			continue // the model and the libraries, which are verified to be what was published
		}
		data, err := os.ReadFile(file)
		if err != nil {
			c.t.Error(err)
		}
		tokens.look("file "+strings.TrimPrefix(file, house.Home), string(data))
	}
	if found := tokens.find(); len(found) != 0 {
		c.t.Errorf("found secrets in data files, want none:\n%s", strings.Join(found, "\n"))
	}
}

func mustJSON(t *testing.T, value any) string {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
