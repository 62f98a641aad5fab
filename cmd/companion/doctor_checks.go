package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"companion/adapters/authority/keychain"
	"companion/adapters/authority/transport"
	"companion/adapters/config"
	"companion/adapters/door/controlsock"
	"companion/adapters/privatefs"
	"companion/messages"
)

// leastFree is the free space below which a download of a usual small model fails, and leastState below which the log and
// the identity of the runtime cannot be written.
const (
	leastFree  = 2 << 30
	leastState = 1 << 20
)

// skewAllowed is how far this machine's clock may be from the hub's: TLS and expiry dates need no better.
const skewAllowed = 2 * time.Minute

func checkConfiguration(_ context.Context, x *examination) []finding {
	var found []finding
	if err := checkFiles(x.s, x.values); err != nil {
		found = append(found, failed("companion config check", "%v", described(err).message))
	}
	if missing := notConfigured(x.s); missing != "" {
		found = append(found, warning("companion config init, then set them in "+x.places.Config, "%s", missing))
	}
	for _, name := range config.Unknown(os.Environ()) {
		found = append(found, warning("unset "+name, "the environment variable %s sets no key", name))
	}
	if len(found) == 0 {
		found = append(found, ok("%s", x.places.Config))
	}
	return found
}

func checkFolders(_ context.Context, x *examination) []finding {
	var found []finding
	for _, dir := range []string{x.places.Data, x.places.State, x.places.Runtime, x.places.Models, x.places.Runtimes, x.places.Trust} {
		if err := privatefs.CheckDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			found = append(found, failed("chmod 700 "+dir+", after you know who changed it", "%v", err))
		}
	}
	for _, file := range []string{x.places.Log, x.places.Endpoint} {
		if err := privatefs.CheckFile(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			found = append(found, failed("chmod 600 "+file+", after you know who changed it", "%v", err))
		}
	}
	if len(found) == 0 {
		found = append(found, ok("private to you"))
	}
	return found
}

func checkDisk(_ context.Context, x *examination) []finding {
	var found []finding
	for _, at := range roomNeeded(x.places) {
		usage, err := diskOf(at.folder)
		switch {
		case err != nil:
			found = append(found, warning("", "the free space of %s cannot be read: %v", at.folder, err))
		case usage.Free < at.least:
			found = append(found, failed("free space on that disk", "%s has %s free; %s needs %s", at.folder, bytesText(int64(usage.Free)), at.what, bytesText(int64(at.least))))
		case at.folder == x.places.Data:
			found = append(found, ok("%s free for models", bytesText(int64(min(usage.Free, 1<<62)))))
		}
	}
	return found
}

func checkKeychain(ctx context.Context, x *examination) []finding {
	if keychain.AsksByItself {
		return []finding{warning("", "not asked: a question could raise a dialog on this system")}
	}
	chain, err := keychain.Open(keychain.Options{Backend: x.s.Keychain.Backend, Service: x.s.Keychain.Service})
	if err == nil {
		_, _, err = chain.Get(ctx, keychain.LoopbackToken)
	}
	var refused *keychain.Error
	switch {
	case errors.As(err, &refused):
		return []finding{failed(nextStep(refused.Reason), "%s", explain(refused.Reason))}
	case err != nil:
		return []finding{failed("restart the keychain service", "no answer in time")}
	}
	return []finding{ok("%s answers", x.s.Keychain.Backend)}
}

// checkHub reaches the hub, and compares the clocks by the Date header of its answer.
func checkHub(ctx context.Context, x *examination) []finding {
	if !x.s.Hub.Configured() {
		return []finding{ok("no hub is configured: only what you added is served")}
	}
	client, err := transport.New(x.s.Hub.CAFile)
	if err != nil {
		return []finding{failed("companion config check", "%v", err)}
	}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, x.s.Hub.URL, nil)
	if err != nil {
		return []finding{failed("check hub.url", "%v", err)}
	}
	answer, err := client.Do(request)
	if err != nil {
		var failure *url.Error
		if errors.As(err, &failure) {
			err = failure.Err
		}
		if strings.Contains(err.Error(), "certificate") {
			return []finding{failed("set hub.ca_file to the hub's authority, or check the clock", "the certificate of %s is refused: %v", x.s.Hub.URL, err)}
		}
		return []finding{failed("check the network and hub.url", "%s cannot be reached: %v", x.s.Hub.URL, err)}
	}
	_ = answer.Body.Close()
	found := []finding{ok("%s answers, its certificate is accepted", x.s.Hub.URL)}
	if date, err := http.ParseTime(answer.Header.Get("Date")); err == nil {
		if skew := time.Since(date).Round(time.Second); skew.Abs() > skewAllowed {
			found = append(found, failed("set the clock, such as with `timedatectl set-ntp true`", "this machine's clock is %v from the hub's", skew))
		}
	}
	return found
}

// checkProxy warns of a proxy that would carry requests to the endpoint.
func checkProxy(_ context.Context, _ *examination) []finding {
	proxy := httpproxy.FromEnvironment()
	// ALL_PROXY is not for Go; curl and the libraries for Python take it.
	if proxy.HTTPProxy == "" && proxy.HTTPSProxy == "" && os.Getenv("ALL_PROXY") == "" && os.Getenv("all_proxy") == "" {
		return []finding{ok("no proxy variables")}
	}
	// Go never sends loopback addresses to a proxy; others do unless NO_PROXY names them.
	excluded := func(name string) bool { name = strings.TrimSpace(name); return name == "127.0.0.1" || name == "*" }
	if !slices.ContainsFunc(strings.Split(proxy.NoProxy, ","), excluded) {
		return []finding{warning("export NO_PROXY=127.0.0.1,localhost,::1", "a proxy is set, and NO_PROXY does not name 127.0.0.1: some programs would send requests to the endpoint through it")}
	}
	return []finding{ok("a proxy is set; loopback is excluded")}
}

func checkDaemon(_ context.Context, x *examination) []finding {
	if x.status != nil {
		found := []finding{ok("version %s, process %d", x.status.Version, x.status.PID)}
		if x.status.Version != version {
			found = append(found, warning("restart the daemon", "the daemon is version %s, this program %s", x.status.Version, version))
		}
		for _, actor := range x.status.Actors {
			if actor.Restarts > 0 {
				found = append(found, warning("companion logs --level warn", "%s restarted %s: %s", actor.Name, times(actor.Restarts), actor.LastError))
			}
		}
		return found
	}
	if errors.Is(x.asked, controlsock.ErrNotRunning) {
		return []finding{failed("companion run", "the companion is not running")}
	}
	return []finding{failed("companion logs; end the process, then companion run", "%v", x.asked)}
}

// unknownWithout is the finding of a check that needs the daemon.
func unknownWithout(x *examination) []finding {
	if x.status == nil {
		return []finding{warning("companion run", "not known: the daemon does not answer")}
	}
	return nil
}

func checkSession(_ context.Context, x *examination) []finding {
	if x.status == nil {
		return unknownWithout(x)
	}
	found := checkSessionState(x)
	if n := x.status.Session.Unrevoked; n > 0 {
		found = append(found, warning("check the network; `companion logs --actor session` says more", "%s", unrevoked(n)))
	}
	return found
}

func checkSessionState(x *examination) []finding {
	switch x.status.Session.State {
	case messages.SessionSignedIn:
		return []finding{ok("signed in")}
	case messages.SessionNoHub:
		return []finding{ok("not needed: no hub is configured")}
	}
	if x.status.Facts.Verified {
		return []finding{warning("companion login", "nobody is signed in; what is here serves, nothing new is fetched")}
	}
	return []finding{failed("companion login", "nobody is signed in")}
}

func checkManifest(_ context.Context, x *examination) []finding {
	if x.status == nil {
		return unknownWithout(x)
	}
	m := x.status.Manifest
	switch {
	case m.AddedReason != "":
		return []finding{failed("companion add says more", "what you added cannot be used: %s", explain(m.AddedReason))}
	case m.Reason == messages.ReasonNoHub && m.Added > 0:
		return []finding{ok("not needed: no hub is configured, and %d artifacts are yours", m.Added)}
	case m.Version == 0:
		return []finding{failed(nextStep(m.Reason), "none is here: %s", explain(m.Reason))}
	case m.Expires != nil && time.Now().After(*m.Expires):
		return []finding{failed(nextStep(messages.ReasonManifestExpired), "expired at %s", m.Expires.Local().Format(time.DateTime))}
	case m.Reason != "" && m.Reason != messages.ReasonOK:
		return []finding{warning(nextStep(m.Reason), "version %d; the last check failed: %s", m.Version, explain(m.Reason))}
	}
	return []finding{ok("version %d", m.Version)}
}

func checkFilesHere(_ context.Context, x *examination) []finding {
	if x.status == nil {
		return unknownWithout(x)
	}
	if x.status.Facts.Verified {
		return []finding{ok("%s and %s match their signed checksums", named(x.status.Model.Name, x.status.Model.Version), named(x.status.Runtime.Name, x.status.Runtime.Version))}
	}
	if len(x.status.Transfers) > 0 {
		return []finding{warning("wait", "on the way: %s", transferRow(x.status.Transfers[0]))}
	}
	return []finding{failed(mark(nextStep(x.status.Reason) != "", nextStep(x.status.Reason), "companion pull"), "model and runtime are not here and verified: %s", explain(x.status.Reason))}
}

func checkSandbox(_ context.Context, x *examination) []finding {
	if runtime.GOOS != "linux" {
		return []finding{warning("", "this system has no sandbox for the runtime; docs/security.md says what that means")}
	}
	if x.status == nil || x.status.Runtime.PID == 0 {
		return []finding{warning("companion start", "not known: it is proved at each start of the runtime, and none runs")}
	}
	box := x.status.Runtime.Sandbox
	text := fmt.Sprintf("proved at the start of process %d: Landlock ABI %d, seccomp %s", x.status.Runtime.PID, box.Landlock, mark(box.Seccomp, "on", "off"))
	if box.Landlock == 0 || !box.Seccomp {
		return []finding{warning("a kernel with Landlock and seccomp; docs/security.md lists the levels", "%s", text)}
	}
	return []finding{ok("%s", text)}
}

func checkRuntime(_ context.Context, x *examination) []finding {
	if x.status == nil {
		return unknownWithout(x)
	}
	var found []finding
	switch s := *x.status; {
	case s.CompanionAvailable:
		found = append(found, ok("available, %s in memory%s", bytesText(s.Runtime.ResidentBytes), mark(s.Runtime.GPUBytes > 0, ", "+bytesText(s.Runtime.GPUBytes)+" on the GPU", "")))
	case s.Lifecycle == messages.StateStarting:
		found = append(found, warning("companion status --wait", "%s", stage(s)))
	case stoppedByUser(s):
		found = append(found, warning("companion start", "stopped"))
	default:
		found = append(found, failed(next(s), "%s", stage(s)))
	}
	if exit := x.status.Runtime.LastExit; exit != nil {
		text := "last failure at " + exit.At.Local().Format(time.DateTime) + ": " + exitText(*exit)
		if len(exit.LastLines) > 0 {
			text += ": " + exit.LastLines[len(exit.LastLines)-1]
		}
		found = append(found, warning(nextStep(exit.Reason), "%s", text))
	}
	if x.status.Runtime.PID != 0 && !x.status.Runtime.Pinned {
		found = append(found, warning("clear runtime.allow_unpinned_binary", "the runtime's binary is not the manifest's"))
	}
	return found
}

func checkEndpoint(ctx context.Context, x *examination) []finding {
	if x.status == nil {
		return unknownWithout(x)
	}
	address, err := url.Parse(x.status.FrontDoor.BaseURL)
	if err != nil || address.Host == "" {
		return []finding{failed("companion logs --actor door", "it is not open")}
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address.Host)
	if err != nil {
		return []finding{failed("companion logs --actor door", "%s does not accept connections: %v", x.status.FrontDoor.BaseURL, err)}
	}
	_ = conn.Close()
	return []finding{ok("%s", x.status.FrontDoor.BaseURL)}
}

// otherServers are the default addresses of other local model servers.
var otherServers = map[string]string{
	"127.0.0.1:11434": "Ollama", "127.0.0.1:1234": "LM Studio", "127.0.0.1:8080": "llama-server or LocalAI", "127.0.0.1:8000": "vLLM",
}

// checkOtherServers looks for model servers that answer without a token: any program and any web page can use those.
func checkOtherServers(ctx context.Context, _ *examination) []finding {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	var found []finding
	for address, name := range otherServers {
		if answersWithoutToken(ctx, client, "http://"+address+"/v1/models") {
			found = append(found, warning("stop it, or give it a token", "a model server answers without a token at http://%s (%s, by its port)", address, name))
		}
	}
	if len(found) == 0 {
		found = append(found, ok("no other model server answers without a token on the usual ports"))
	}
	return found
}

func answersWithoutToken(ctx context.Context, client *http.Client, address string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return false
	}
	answer, err := client.Do(request)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	var list struct {
		Data []json.RawMessage `json:"data"`
	}
	return answer.StatusCode == http.StatusOK && json.NewDecoder(io.LimitReader(answer.Body, 1<<20)).Decode(&list) == nil && list.Data != nil
}
