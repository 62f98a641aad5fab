package main

import (
	"net/url"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http/httpproxy"

	"companion/messages"
)

func testDoor(baseURL string) door {
	return door{baseURL: baseURL, token: messages.NewSecret("tok"), status: messages.Status{Model: messages.StatusModel{Name: "gemma"}}}
}

// values runs variables and returns what a program gets.
func values(t *testing.T, d door, only string, environ ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, entry := range environment(environ, d.variables(only, environ)) {
		name, value, _ := strings.Cut(entry, "=")
		if _, twice := all[name]; twice {
			t.Errorf("%s is set twice, want once", name)
		}
		all[name] = value
	}
	return all
}

// X4, X13: programs of both families get what they read, and nothing else of the other family with --only.
func TestVariables(t *testing.T) {
	openAI := map[string]string{
		"OPENAI_BASE_URL": "http://127.0.0.1:4321/v1", "OPENAI_API_BASE": "http://127.0.0.1:4321/v1", "OPENAI_API_KEY": "tok", "OPENAI_MODEL": "gemma",
	}
	anthropic := map[string]string{"ANTHROPIC_BASE_URL": "http://127.0.0.1:4321", "ANTHROPIC_AUTH_TOKEN": "tok", "ANTHROPIC_MODEL": "gemma"}
	for only, want := range map[string][2]map[string]string{"": {openAI, anthropic}, "openai": {openAI, nil}, "anthropic": {nil, anthropic}} {
		got := values(t, testDoor("http://127.0.0.1:4321/v1"), only, "HOME=/h", "OPENAI_BASE_URL=https://api.openai.com", "OTHER=1")
		if got["HOME"] != "/h" || got["OTHER"] != "1" {
			t.Errorf("only %q: got %v, want the other variables unchanged", only, got)
		}
		for i, family := range []map[string]string{openAI, anthropic} {
			for name, value := range family {
				if want[i] == nil {
					if value = ""; name == "OPENAI_BASE_URL" {
						value = "https://api.openai.com" // what the user has
					}
				}
				if got[name] != value {
					t.Errorf("only %q: %s is %q, want %q", only, name, got[name], value)
				}
			}
		}
	}
	if got := values(t, testDoor("http://127.0.0.1:4321/v1"), "", "ANTHROPIC_API_KEY=sk-real"); got["ANTHROPIC_API_KEY"] != "tok" {
		t.Errorf("ANTHROPIC_API_KEY is %q, want the token: a real key would be sent beside it", got["ANTHROPIC_API_KEY"])
	}
	if err := checkFamily("gemini"); err == nil {
		t.Error("--only gemini was accepted")
	}
}

// X13: requests to the endpoint go to no proxy, and requests that went to none before still go to none. The judge is
// the parser that Go programs use.
func TestLoopbackPastProxies(t *testing.T) {
	for _, base := range []string{"http://127.0.0.1:4321/v1", "http://[::1]:4321/v1"} {
		for _, before := range [][]string{
			nil, {"NO_PROXY="}, {"NO_PROXY=corp.example,10.0.0.0/8"}, {"no_proxy=corp.example"}, {"NO_PROXY=corp.example", "no_proxy=lower.example"},
			{"NO_PROXY=localhost,127.0.0.1"}, {"NO_PROXY=*"}, {"NO_PROXY=corp.example, localhost"}, {"no_proxy=*"}, {"NO_PROXY=corp.example,*"},
			{"NO_PROXY=corp.example 127.0.0.1"}, {"NO_PROXY=corp.example\r\n127.0.0.1"}, {"NO_PROXY=localhost:8080"}, {"NO_PROXY=,"}, {"NO_PROXY= *"},
		} {
			got := values(t, testDoor(base), "", append([]string{"HTTP_PROXY=http://proxy.example:3128"}, before...)...)
			for _, name := range []string{"NO_PROXY", "no_proxy"} {
				// Go takes localhost and loopback addresses for direct by itself, so the list is also read as Python and curl do.
				listed := strings.Split(strings.ReplaceAll(got[name], ", ", ","), ",")
				if got[name] != "*" && (!slices.Contains(listed, "127.0.0.1") || !slices.Contains(listed, "localhost")) || strings.ContainsAny(got[name], "\r\n") {
					t.Errorf("%v: %s is %q, want the loopback names in it", before, name, got[name])
				}
				config := httpproxy.Config{HTTPProxy: got["HTTP_PROXY"], NoProxy: got[name]}
				for _, entry := range before {
					variable, old, _ := strings.Cut(entry, "=")
					both := len(before) > 1 && variable != name
					was := httpproxy.Config{HTTPProxy: got["HTTP_PROXY"], NoProxy: old}
					for _, host := range strings.FieldsFunc(old, func(c rune) bool { return strings.ContainsRune(", \r\n", c) }) {
						proxy, err := was.ProxyFunc()(&url.URL{Scheme: "http", Host: host})
						if both || strings.ContainsAny(host, "/*") || proxy != nil || err != nil {
							continue
						}
						if proxy, err := config.ProxyFunc()(&url.URL{Scheme: "http", Host: host}); proxy != nil || err != nil {
							t.Errorf("%v: with %s=%q, %s goes to %v, want no proxy", before, name, got[name], host, proxy)
						}
					}
				}
				if strings.Count(","+got[name], ",127.0.0.1") > 1 || strings.HasPrefix(got[name], ",1") {
					t.Errorf("%v: %s is %q, want 127.0.0.1 once", before, name, got[name])
				}
			}
		}
	}
}

// A value that holds what a shell takes for its own quotes stays one value.
func TestShellsQuote(t *testing.T) {
	all := []variable{{"NO_PROXY", `a\'b’c`}}
	for shell, want := range map[string]string{
		"sh":         "export NO_PROXY='a\\'\\''b’c'\n",
		"fish":       "set -gx NO_PROXY 'a\\\\\\'b’c'\n",
		"powershell": "$Env:NO_PROXY = 'a\\''b’’c'\n",
	} {
		if got := shells[shell](all); got != want {
			t.Errorf("%s: got %q, want %q", shell, got, want)
		}
	}
}

// X13: variables that would lead a program elsewhere are set to what is served here, and are not made where the user has none.
func TestVariablesThatLeadElsewhere(t *testing.T) {
	elsewhere := map[string]string{
		"CLAUDE_CODE_USE_BEDROCK": "0", "CLAUDE_CODE_USE_VERTEX": "0", "CLAUDE_CODE_USE_FOUNDRY": "0", "CLAUDE_CODE_USE_MANTLE": "0", "CLAUDE_CODE_USE_ANTHROPIC_AWS": "0",
		"ANTHROPIC_SMALL_FAST_MODEL": "gemma", "ANTHROPIC_DEFAULT_SONNET_MODEL": "gemma", "ANTHROPIC_DEFAULT_OPUS_MODEL": "gemma", "CLAUDE_CODE_SUBAGENT_MODEL": "gemma",
		"OPENAI_API_TYPE": "openai", "ANTHROPIC_API_KEY": "tok",
	}
	for name, want := range elsewhere {
		d := testDoor("http://127.0.0.1:4321/v1")
		family, other := familyAnthropic, familyOpenAI
		if strings.HasPrefix(name, "OPENAI") {
			family, other = other, family
		}
		for only, value := range map[string]string{"": want, family: want, other: "1"} {
			if got := values(t, d, only, name+"=1"); got[name] != value {
				t.Errorf("only %q: %s is %q, want %q", only, name, got[name], value)
			}
		}
		if got, set := values(t, d, "")[name]; set {
			t.Errorf("%s is set to %q where the user has none, want it unset", name, got)
		}
	}
}

// X4: what env prints is read by the shells themselves as it was, whatever is in it.
func TestShellsReadWhatIsPrinted(t *testing.T) {
	hostile := "a'b\"c\\\u2019; touch /tmp/x; $(touch /tmp/x) `touch /tmp/x` $HOME %PATH% \\"
	all := []variable{{"COMPANION_TEST", hostile}}
	ran := 0
	for shell, command := range map[string][]string{
		"sh": {"sh", "-c"}, "bash": {"bash", "-c"}, "zsh": {"zsh", "-c"}, "fish": {"fish", "-N", "-c"}, "powershell": {"pwsh", "-NoProfile", "-Command"},
	} {
		if _, err := exec.LookPath(command[0]); err != nil {
			continue
		}
		ran++
		script := shells[shell](all) + "\nprintenv COMPANION_TEST"
		out, err := exec.Command(command[0], append(command[1:], script)...).CombinedOutput()
		if got := strings.TrimSuffix(string(out), "\n"); err != nil || got != hostile {
			t.Errorf("%s: got %q, %v, want %q", shell, got, err, hostile)
		}
	}
	if ran == 0 && runtime.GOOS != "windows" {
		t.Error("found no shell, want sh at least")
	}
	for shell, want := range map[string]string{
		"fish": "set -gx COMPANION_TEST 'a\\'b\"c\\\\\u2019;", "powershell": "$Env:COMPANION_TEST = 'a''b\"c\\\u2019\u2019;",
	} {
		if got := shells[shell](all); !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %q, want it to begin with %q", shell, got, want)
		}
	}
}
