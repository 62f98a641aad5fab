package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"companion/adapters/config"
	"companion/adapters/door/controlsock"
	"companion/messages"
)

// examined is an examination of a healthy installation in a folder of the test.
func examined(t *testing.T) *examination {
	t.Helper()
	dir := t.TempDir()
	s := config.Default()
	s.Hub.URL, s.Manifest.RootFile = "https://hub.test", filepath.Join(dir, "root.json")
	status := working()
	status.Version, status.Session.User = version, "Ada"
	places := config.Places{Config: filepath.Join(dir, "config.toml"), Data: dir, State: filepath.Join(dir, "state"), Runtime: filepath.Join(dir, "run"),
		Models: filepath.Join(dir, "models"), Runtimes: filepath.Join(dir, "runtimes"), Trust: filepath.Join(dir, "trust"), Log: filepath.Join(dir, "log")}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return &examination{app: &app{}, s: s, places: places, status: &status}
}

func states(found []finding) string {
	var all []string
	for _, f := range found {
		all = append(all, f.State)
	}
	return strings.Join(all, " ")
}

// X9: each check reports what was broken, with a way to mend it, and is quiet before.
func TestChecksFindWhatIsBroken(t *testing.T) {
	expired := time.Now().Add(-time.Hour)
	for name, row := range map[string]struct {
		check       func(context.Context, *examination) []finding
		broken      func(*examination)
		state, says string
	}{
		"no root":         {checkConfiguration, func(x *examination) { x.s.Manifest.RootFile = "" }, checkWarning, "manifest.root_file is not set"},
		"open folder":     {checkFolders, func(x *examination) { _ = os.Mkdir(x.places.State, 0o755) }, checkFailure, "is not private"},
		"readable log":    {checkFolders, func(x *examination) { _ = os.WriteFile(x.places.Log, nil, 0o644) }, checkFailure, "is not private"},
		"daemon ended":    {checkDaemon, func(x *examination) { x.status, x.asked = nil, controlsockNotRunning }, checkFailure, "not running"},
		"silent daemon":   {checkDaemon, func(x *examination) { x.status, x.asked = nil, &controlsock.UnresponsiveError{PID: 4711} }, checkFailure, "4711"},
		"no such setting": {checkConfiguration, func(*examination) { t.Setenv("COMPANION_HUB_UTL", "x") }, checkWarning, "COMPANION_HUB_UTL"},
		"no keychain": {checkKeychain, func(x *examination) {
			x.s.Keychain.Backend = "secret-service"
			t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent")
		}, checkFailure, "there is no keychain service"},
		"another model server": {checkOtherServers, func(*examination) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"data":[]}`)) }))
			t.Cleanup(server.Close)
			otherServers = map[string]string{strings.TrimPrefix(server.URL, "http://"): "a test"}
		}, checkWarning, "a test, by its port"},
		"starting": {checkRuntime, func(x *examination) { stop(x, messages.ReasonNotReady); x.status.Lifecycle = messages.StateStarting }, checkWarning, "starting"},
		"transfer": {checkFilesHere, func(x *examination) {
			x.status.Facts.Verified, x.status.Transfers = false, []messages.Transfer{{Name: "gemma"}}
		}, checkWarning, "on the way"},
		"unrevoked":     {checkSession, func(x *examination) { x.status.Session.Unrevoked = 1 }, checkWarning, "hub"},
		"bad catalogue": {checkManifest, func(x *examination) { x.status.Manifest.AddedReason = messages.ReasonManifestUntrusted }, checkFailure, "what you added"},
		"exit": {checkRuntime, func(x *examination) {
			x.status.Runtime.LastExit = &messages.ExitReport{Reason: messages.ReasonProcessExited, LastLines: []string{"out of memory"}}
		}, checkWarning, "out of memory"},
		"older daemon": {checkDaemon, func(x *examination) { x.status.Version = "0.0.1" }, checkWarning, "0.0.1"},
		"actor restarted": {checkDaemon, func(x *examination) {
			x.status.Actors = []messages.ActorView{{Name: "lifecycle", Restarts: 1, LastError: "oops"}}
		}, checkWarning, "restarted once: oops"},
		"signed out": {checkSession, func(x *examination) {
			x.status.Session.State, x.status.Facts.Verified = messages.SessionSignedOut, false
		}, checkFailure, "nobody is signed in"},
		"no manifest": {checkManifest, func(x *examination) {
			x.status.Manifest = messages.StatusManifest{Reason: messages.ReasonManifestUntrusted}
		}, checkFailure, "not signed by a trusted key"},
		"expired manifest":       {checkManifest, func(x *examination) { x.status.Manifest.Expires = &expired }, checkFailure, "expired at"},
		"failed check":           {checkManifest, func(x *examination) { x.status.Manifest.Reason = messages.ReasonManifestUnreachable }, checkWarning, "cannot be reached"},
		"bad download":           {checkFilesHere, func(x *examination) { x.status.Facts.Verified, x.status.Reason = false, messages.ReasonDigestMismatch }, checkFailure, "signed checksum"},
		"no Landlock":            {checkSandbox, func(x *examination) { x.status.Runtime.Sandbox.Landlock = 0 }, checkWarning, "Landlock ABI 0"},
		"no seccomp":             {checkSandbox, func(x *examination) { x.status.Runtime.Sandbox.Seccomp = false }, checkWarning, "seccomp off"},
		"stopped":                {checkRuntime, func(x *examination) { stop(x, messages.ReasonNotReady) }, checkWarning, "stopped"},
		"held":                   {checkRuntime, func(x *examination) { stop(x, messages.ReasonCrashLoop); x.status.Runtime.Held = true }, checkFailure, "held back"},
		"unpinned":               {checkRuntime, func(x *examination) { x.status.Runtime.Pinned = false }, checkWarning, "not the manifest's"},
		"endpoint closed":        {checkEndpoint, func(x *examination) { x.status.FrontDoor.BaseURL = "http://127.0.0.1:1/v1" }, checkFailure, "does not accept"},
		"endpoint not open":      {checkEndpoint, func(x *examination) { x.status.FrontDoor.BaseURL = "" }, checkFailure, "not open"},
		"proxy without loopback": {checkProxy, func(*examination) { t.Setenv("HTTPS_PROXY", "http://proxy.test:1"); t.Setenv("NO_PROXY", "") }, checkWarning, "NO_PROXY"},
		"proxy for all":          {checkProxy, func(*examination) { t.Setenv("ALL_PROXY", "socks5://proxy.test:1"); t.Setenv("NO_PROXY", "x127.0.0.1") }, checkWarning, "NO_PROXY"},
		"no certificate":         {checkHub, func(x *examination) { x.s.Hub.CAFile = "/nonexistent" }, checkFailure, "/nonexistent"},
	} {
		t.Run(name, func(t *testing.T) {
			x := examined(t)
			x.s.Keychain = config.Keychain{Backend: "kernel-keyring", Service: "companion-doctor-test"}
			for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy", "COMPANION_HUB_UTL"} {
				t.Setenv(name, "") // restored at the end
				_ = os.Unsetenv(name)
			}
			before := otherServers
			otherServers = nil
			t.Cleanup(func() { otherServers = before })
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			x.status.FrontDoor.BaseURL = "http://" + listener.Addr().String() + "/v1"
			x.status.Manifest.Version = 1
			if name != "no certificate" { // the hub of the test does not exist
				for _, f := range row.check(t.Context(), x) {
					if f.State != checkOK {
						t.Errorf("got %+v before anything was broken, want ok", f)
					}
				}
			}
			row.broken(x)
			found := row.check(t.Context(), x)
			hit := false
			for _, f := range found {
				hit = hit || f.State == row.state && strings.Contains(f.Text, row.says)
				if f.State == checkFailure && f.Fix == "" {
					t.Errorf("got %+v, want a way to mend it", f)
				}
			}
			if !hit {
				t.Errorf("got %+v, want a %s that says %q", found, row.state, row.says)
			}
		})
	}
}

func stop(x *examination, reason messages.Reason) {
	x.status.CompanionAvailable, x.status.Lifecycle, x.status.Reason = false, messages.StateStopped, reason
}

// The hub is reached over TLS with the configured authority, and its clock is compared.
func TestCheckHub(t *testing.T) {
	date := ""
	hub := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if date != "" {
			w.Header().Set("Date", date)
		}
	}))
	defer hub.Close()
	x := examined(t)
	x.s.Hub.URL = hub.URL
	if found := checkHub(t.Context(), x); states(found) != checkFailure || !strings.Contains(found[0].Text, "certificate") {
		t.Errorf("unknown authority: got %+v, want a failure about the certificate", found)
	}
	x.s.Hub.CAFile = writeAuthority(t, hub)
	if found := checkHub(t.Context(), x); states(found) != checkOK {
		t.Errorf("got %+v, want ok", found)
	}
	date = time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)
	if found := checkHub(t.Context(), x); states(found) != checkOK+" "+checkFailure || !strings.Contains(found[1].Text, "clock") {
		t.Errorf("clock: got %+v, want a failure about the clock", found)
	}
	hub.Close()
	if found := checkHub(t.Context(), x); states(found) != checkFailure || !strings.Contains(found[0].Text, "cannot be reached") {
		t.Errorf("closed: got %+v, want a failure", found)
	}
}

// A server that lists models without a token is found, one that wants a token is not.
func TestAnswersWithoutToken(t *testing.T) {
	for body, want := range map[string]bool{`{"object":"list","data":[]}`: true, `{"error":"token"}`: false, "hello": false} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }))
		if got := answersWithoutToken(t.Context(), server.Client(), server.URL); got != want {
			t.Errorf("%s: got %v, want %v", body, got, want)
		}
		server.Close()
	}
}

// T12, X9: the bundle holds none of the canaries: names, places, settings, tokens.
func TestBundleIsRedacted(t *testing.T) {
	x := examined(t)
	const canary = "canary"
	home := filepath.Join(t.TempDir(), canary+`home of "Ada" & <Bob>`)
	t.Setenv("HOME", home)
	t.Setenv("CANARY_KEY", canary+"environment")
	token := strings.Repeat(canary+"Token9", 5)
	x.s.Hub.URL, x.s.Hub.ClientID, x.s.Hub.CAFile = "https://"+canary+".hub.test", canary+"-client", "/etc/"+canary+"/ca.pem"
	x.s.Hub.IssuerURL = "https://" + canary + ".login.test/issuer"
	x.status.FrontDoor.Applications = []messages.ApplicationView{{Name: canary + "-editor"}}
	x.status.Model.Name, x.status.Model.Yours = canary+"-letters.gguf", true
	x.status.Session.User = canary + " user"
	x.values = []config.Value{{Key: "hub.client_id", Value: canary + "-client", Source: config.FromFile, Where: home + "/config.toml:3"}}
	application := "c4n" + strings.Repeat("-"+canary+"_5", 4) // of the form of an application token: 32 characters and more of base64url
	link := "https://" + canary + "-user:" + canary + "@files.test:8443/a/b?key=" + canary + "#" + canary + " and ftp://" + canary + "@x/ https://" + canary + ".login.test " + canary + "-editor " + canary + "-letters.gguf dial tcp 10.20.30.40:443 and [2001:db8::7]:53, not 127.0.0.1:80"
	x.status.FrontDoor.Verdicts = map[messages.Reason]int64{messages.Reason(application): 1}
	said, _ := json.Marshal(home + " " + token + " " + application + " " + link + " " + canary + " user")
	line := `{"level":"info","time":"2026-01-02T03:04:05.000000Z","actor":"a","event":"e","line":` + string(said) + `}`
	if err := os.WriteFile(x.places.Log, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "report.json")
	found := []finding{failed("get "+link, "%s", home), failed("check "+home, "the certificate of https://%s.hub.test is refused, %s", canary, x.s.Hub.CAFile)}
	a := &app{}
	if err := a.writeBundle(path, found, x); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(bytes.ToLower(data), []byte(canary)) {
		t.Errorf("got a canary in the report, want none:\n%s", data)
	}
	if !bytes.Contains(data, []byte("https://[redacted]@files.test:8443/a/b?[redacted]")) {
		t.Errorf("got no address of the file, want it without user and query:\n%s", data)
	}
	for _, want := range []string{"[address]:443 and [address]:53, not 127.0.0.1:80", "[application 1] [model]"} {
		if !bytes.Contains(data, []byte(want)) {
			t.Errorf("got no %q, want it in:\n%s", want, data)
		}
	}
	var back bundle
	if err := json.Unmarshal(data, &back); err != nil || len(back.Log) != 1 || len(back.Checks) != 2 || back.Settings["hub.client_id"] != "file" {
		t.Errorf("got %+v, %v; want the log line, the check and the setting's source", back, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v; want mode 0600", info, err)
	}
	if err := a.writeBundle(path, found, x); err == nil {
		t.Error("writeBundle wrote over a file, want an error")
	}
}

var controlsockNotRunning = controlsock.ErrNotRunning

// writeAuthority writes the certificate of a test server as a PEM file.
func writeAuthority(t *testing.T, server *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(path, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// X9: every check that there is has a row that breaks it, or a test of its own.
func TestEveryCheckIsBroken(t *testing.T) {
	source, err := os.ReadFile("doctor_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range checks {
		name := runtime.FuncForPC(reflect.ValueOf(c.do).Pointer()).Name()
		name = name[strings.LastIndex(name, ".")+1:]
		if c.name == "disk" || c.name == "gpu" { // TestStateDiskFull in e2e/supply fills one; TestCheckGPU
			continue
		}
		if !strings.Contains(string(source), name+", func(") && !strings.Contains(string(source), name+"(t.Context(), x)") {
			t.Errorf("%s: got no test that breaks what it looks at, want one", c.name)
		}
	}
}
