package config

import (
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/adrg/xdg"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"companion/adapters/privatefs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func problems(t *testing.T, err error) []Problem {
	t.Helper()
	var refused *Error
	if !errors.As(err, &refused) {
		t.Fatalf("got error %v, want an *Error", err)
	}
	return refused.Problems
}

// X5: an error names file, line and the accepted values, for every kind of key and for unknown names.
func TestRefused(t *testing.T) {
	tests := []struct {
		name, text string
		line       int
		key        string
		says       string
	}{
		{"unknown key", "[hub]\nurl = \"https://h.example\"\ntoken = \"t0p\"\n", 3, "hub.token", "accepted here: url, ca_file"},
		{"unknown section", "\n\n[cloud]\nx = 1\n", 3, "cloud", "accepted here: hub, manifest"},
		{"unknown lane", "[lanes.cheap]\nmodel = \"x\"\n", 1, "lanes.cheap", "self_hosted"},
		{"unknown in inline table", "hub = { url = \"https://h.example\", nope = 1 }", 1, "hub.nope", "accepted here"},
		{"dotted key in quotes", "\"hub.url\" = \"https://h.example\"\n", 1, `"hub.url"`, "unknown key"},
		{"value where a table belongs", "hub = 3\n", 1, "hub", "write [hub]"},
		{"array of tables", "[[hub]]\nurl = \"https://h.example\"\n", 1, "hub", "write [hub]"},
		{"clear text hub", "[hub]\n\nurl = \"http://h.example\"", 3, "hub.url", "https origin"},
		{"hub with path", "[hub]\nurl = \"https://h.example/x\"", 2, "hub.url", "https origin"},
		{"hub with user", "[hub]\nurl = \"https://u:p@h.example\"", 2, "hub.url", "https origin"},
		{"clear text issuer", "[hub]\nissuer = \"http://login.example\"", 2, "hub.issuer", "https URL"},
		{"issuer with query", "[hub]\nissuer = \"https://login.example/?a\"", 2, "hub.issuer", "https URL"},
		{"issuer with fragment", "[hub]\nissuer = \"https://login.example/#\"", 2, "hub.issuer", "https URL"},
		{"issuer with user", "[hub]\nissuer = \"https://u@login.example/\"", 2, "hub.issuer", "https URL"},
		{"hub with slash", "[hub]\nurl = \"https://h.example/\"", 2, "hub.url", "https origin"},
		{"relative file", "[hub]\nca_file = \"ca.pem\"", 2, "hub.ca_file", "absolute path"},
		{"routable address", "[front_door]\naddress = \"0.0.0.0\"", 2, "front_door.address", `"127.0.0.1", "[::1]"`},
		{"host name", "[front_door]\naddress = \"localhost\"", 2, "front_door.address", `"127.0.0.1", "[::1]"`},
		{"other loopback", "[front_door]\naddress = \"127.0.0.2\"", 2, "front_door.address", `"127.0.0.1", "[::1]"`},
		{"no sandbox", "[runtime]\nsandbox = \"off\"", 2, "runtime.sandbox", `"require", "prefer"`},
		{"text for number", "[runtime]\nthreads = \"2\"", 2, "runtime.threads", "whole number from 0"},
		{"zero in flight", "[runtime]\nmax_in_flight = 0", 2, "runtime.max_in_flight", "from 1 to 64"},
		{"negative duration", "[runtime]\nqueue_timeout = \"-1s\"", 2, "runtime.queue_timeout", "duration"},
		{"number for duration", "[manifest]\ngrace = 72", 2, "manifest.grace", "duration"},
		{"size without meaning", "[runtime]\nmemory_limit = \"lots\"", 2, "runtime.memory_limit", "6GiB"},
		{"negative size", "[runtime]\nmemory_limit = \"-6GiB\"", 2, "runtime.memory_limit", "6GiB"},
		{"cache of a few bytes", "[runtime]\nprompt_cache = \"7\"", 2, "runtime.prompt_cache", `"auto", "0" for none`},
		{"cache as a number", "[runtime]\nprompt_cache = 0", 2, "runtime.prompt_cache", `"auto", "0" for none`},
		{"priority without meaning", "[runtime]\npriority = \"high\"", 2, "runtime.priority", `"normal", "background"`},
		{"zero percent", "[runtime]\ncpu_limit = 0", 2, "runtime.cpu_limit", "percentage"},
		{"too many percent", "[runtime]\ncpu_limit = \"101%\"", 2, "runtime.cpu_limit", "percentage"},
		{"not a number", "[runtime]\ncpu_limit = nan", 2, "runtime.cpu_limit", "percentage"},
		{"text for boolean", "[lanes]\ndelegate = \"no\"", 2, "lanes.delegate", "true or false"},
		{"host with port", "[manifest]\nprivate_hosts = [\"a:1\"]", 2, "manifest.private_hosts", "without a port"},
		{"text for list", "[manifest]\nprivate_hosts = \"a\"", 2, "manifest.private_hosts", "list"},
		{"key instead of its variable", "[lanes.openrouter]\nkey_env = \"sk-live-abc\"", 2, "lanes.openrouter.key_env", "never the key itself"},
		{"clear text lane", "[lanes.enterprise]\nbase_url = \"http://llm.example/v1\"", 2, "lanes.enterprise.base_url", "https"},
		{"unknown level", "[log]\nlevel = \"loud\"", 2, "log.level", `"debug"`},
		{"recency below beat", "[health]\nbeat = \"20s\"\nrecency = \"10s\"", 0, "health.recency", "at least health.beat and 4s"},
		{"recency without room for a probe", "[health]\nbeat = \"5s\"\nrecency = \"8999ms\"", 0, "health.recency", "at least health.beat and 4s"},
		{"broken syntax", "[hub]\nurl = \n", 2, "", "not TOML"},
		{"key twice", "[hub]\nurl = \"https://a.example\"\nurl = \"https://b.example\"", 3, "", "not TOML"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := write(t, tt.text)
			_, _, err := Load(Options{File: file})
			got := problems(t, err)[0]
			if got.Line != tt.line || got.Key != tt.key || !strings.Contains(got.Message, tt.says) {
				t.Errorf("got line %d, key %q, %q; want line %d, key %q, and %q", got.Line, got.Key, got.Message, tt.line, tt.key, tt.says)
			}
			if !strings.HasPrefix(err.Error(), file) {
				t.Errorf("got error %q, want it to begin with the file", err)
			}
			for _, private := range []string{"t0p", "sk-live", "u:p"} {
				if strings.Contains(err.Error(), private) {
					t.Errorf("got error %q, want it without the refused value", err)
				}
			}
		})
	}
}

// X5: the environment overrides the file, and flags override the environment; each value has its source.
func TestLayers(t *testing.T) {
	file := write(t, "[hub]\nurl = \"https://file.example\"\n[runtime]\nthreads = 3\nmax_in_flight = 4\nmemory_limit = \"6GiB\"\ncpu_limit = 50\n[manifest]\nprivate_hosts = [\"a.example\", \"::1\"]\n")
	s, values, err := Load(Options{
		File: file,
		Environ: []string{"COMPANION_RUNTIME_THREADS=5", "COMPANION_RUNTIME_MAX_IN_FLIGHT=6", "COMPANION_LANES_DELEGATE=true",
			"COMPANION_LANES_SELF_HOSTED_MODEL=m", "COMPANION_FIXTURES=/elsewhere", "HOME=/h"},
		Flags: []string{"runtime.max_in_flight=7", "log.level=debug"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Hub.URL = "https://file.example"
	want.Runtime.Threads, want.Runtime.MaxInFlight = 5, 7
	want.Runtime.MemoryLimit, want.Runtime.CPULimit = 6<<30, 50
	want.Manifest.PrivateHosts = []string{"a.example", "::1"}
	want.Lanes.Delegate, want.Lanes.SelfHosted.Model = true, "m"
	want.Log.Level = "debug"
	if diff := cmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}
	sources := map[string]string{}
	for _, v := range values {
		sources[v.Key] = string(v.Source) + " " + v.Where
	}
	for key, source := range map[string]string{
		"hub.url":               "file " + file + ":2",
		"runtime.threads":       "environment COMPANION_RUNTIME_THREADS",
		"runtime.max_in_flight": "flag --set runtime.max_in_flight",
		"model.context":         "default ",
	} {
		if sources[key] != source {
			t.Errorf("source of %s: got %q, want %q", key, sources[key], source)
		}
	}
	if len(values) != len(table) {
		t.Errorf("got %d values, want %d", len(values), len(table))
	}
}

// X5: invalid values of environment and flags are refused like those of the file.
func TestRefusedAboveFile(t *testing.T) {
	tests := []struct {
		name string
		o    Options
		want Problem
	}{
		{"unknown variable", Options{Environ: []string{"COMPANION_HUB_TOKEN=x"}},
			Problem{Where: "COMPANION_HUB_TOKEN", Message: "sets no key; accepted: COMPANION_SECTION_KEY, as in COMPANION_HUB_URL"}},
		{"bad variable", Options{Environ: []string{"COMPANION_RUNTIME_SANDBOX=off"}},
			Problem{Where: "COMPANION_RUNTIME_SANDBOX", Key: "runtime.sandbox", Message: `this value is not accepted; accepted: "require", "prefer"`}},
		{"flag without value", Options{Flags: []string{"hub.url"}},
			Problem{Where: "--set", Message: "accepted: SECTION.KEY=VALUE, as in hub.url=https://hub.example"}},
		{"bad flag", Options{Flags: []string{"front_door.address=0.0.0.0"}},
			Problem{Where: "--set front_door.address", Key: "front_door.address", Message: `this value is not accepted; accepted: "127.0.0.1", "[::1]"`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := Load(tt.o)
			if diff := cmp.Diff([]Problem{tt.want}, problems(t, err)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMissingFile(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.toml")
	s, _, err := Load(Options{File: missing})
	if diff := cmp.Diff(Default(), s); err != nil || diff != "" {
		t.Errorf("missing file that is not required: got error %v, difference from the defaults %s; want neither", err, diff)
	}
	if _, _, err := Load(Options{File: missing, Required: true}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file that is required: got %v, want ErrNotExist", err)
	}
}

// The commented file is valid and equals the defaults.
func TestTemplateIsTheDefaults(t *testing.T) {
	s, values, err := Load(Options{File: write(t, Template())})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	if diff := cmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}
	for _, v := range values {
		if v.Source != FromFile {
			t.Errorf("source of %s: got %q, want the commented file", v.Key, v.Source)
		}
	}
	if want.Runtime.QueueTimeout != 10*time.Minute || want.FrontDoor.MaxBody != 16<<20 || want.Manifest.Grace != 72*time.Hour || want.Model.Context != 0 {
		t.Errorf("got %+v, want the defaults of cli.md", want)
	}
}

// Two companions with different XDG folders share no file or folder.
func TestPlacesMoveWithXDG(t *testing.T) {
	t.Cleanup(xdg.Reload)              // after t.Setenv restored the environment
	base, err := os.MkdirTemp("", "s") // t.TempDir could be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	for name, folder := range map[string]string{"CONFIG_HOME": "c", "DATA_HOME": "d", "STATE_HOME": "s", "RUNTIME_DIR": "r"} {
		t.Setenv("XDG_"+name, filepath.Join(base, folder))
	}
	p, err := Locate()
	if err != nil {
		t.Fatal(err)
	}
	got := []string{p.Config, p.Data, p.State, p.Runtime, p.ControlSocket, p.Endpoint}
	want := []string{"c/companion/config.toml", "d/companion", "s/companion",
		"r/companion", "r/companion/control.sock", "r/companion/endpoint.json"}
	for i := range want {
		if got[i] != filepath.Join(base, want[i]) {
			t.Errorf("got %s, want %s", got[i], want[i])
		}
	}
	if err := errors.Join(p.Create(), privatefs.CheckDir(p.Runtime)); err != nil {
		t.Error(err)
	}
}

// Without HOME the home folder comes from the user database, and nothing is written to the root folder.
func TestPlacesWithoutHome(t *testing.T) {
	t.Cleanup(xdg.Reload)
	for _, name := range []string{"XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "HOME"} {
		t.Setenv(name, "")
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	me, err := user.Current()
	if err != nil || !filepath.IsAbs(me.HomeDir) || me.HomeDir == "/" {
		t.Skipf("this user has no home folder: %v", err)
	}
	p, err := Locate()
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []string{p.Config, p.Data, p.State} {
		if !strings.HasPrefix(got, me.HomeDir+string(filepath.Separator)) {
			t.Errorf("got %s, want a place below %s", got, me.HomeDir)
		}
	}
}

// X5: a misspelt variable is refused with a suggestion; variables of other programs are ignored.
func TestMisspeltVariables(t *testing.T) {
	for name, want := range map[string]string{
		"COMPANION_HUB_UTL":        "did you mean COMPANION_HUB_URL?",
		"COMPANION_HUBURL":         "did you mean COMPANION_HUB_URL?",
		"COMPANION_RUNTIM_THREADS": "did you mean COMPANION_RUNTIME_THREADS?",
		"COMPANION_MODELCONTEXT":   "did you mean COMPANION_MODEL_CONTEXT?",
		"COMPANION_MODEL":          "accepted: COMPANION_SECTION_KEY",
		"COMPANION_HUB_NONSENSE":   "accepted: COMPANION_SECTION_KEY",
		"COMPANION_FIXTURES":       "",
		"COMPANION_FAULTS":         "",
		"COMPANIONS_HUB_URL":       "",
	} {
		_, _, err := Load(Options{Environ: []string{name + "=1"}})
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: got %v, want no error", name, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), name+": sets no key; "+want)):
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
	got := Unknown([]string{"COMPANION_FIXTURES=1", "COMPANION_HUB_URL=x", "PATH=/bin"})
	if !slices.Equal(got, []string{"COMPANION_FIXTURES"}) {
		t.Errorf("Unknown: got %q, want COMPANION_FIXTURES", got)
	}
}

// T17: a folder that other users may enter is refused, and its mode is not changed.
func TestCreateRefusesOpenFolder(t *testing.T) {
	t.Cleanup(xdg.Reload)
	base := t.TempDir()
	for _, name := range []string{"CONFIG_HOME", "DATA_HOME", "STATE_HOME", "RUNTIME_DIR"} {
		t.Setenv("XDG_"+name, base)
	}
	if err := os.Mkdir(filepath.Join(base, "companion"), 0o755); err != nil {
		t.Fatal(err)
	}
	p, err := Locate()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Create(); err == nil {
		t.Error("Create accepted a folder of mode 0755, want an error")
	}
}

// R3, X2: a run-time folder whose path is too long for a socket is refused, and the error names XDG_RUNTIME_DIR.
func TestCreateRefusesLongRuntimeFolder(t *testing.T) {
	p := Places{Data: t.TempDir(), BackEnd: "/" + strings.Repeat("x", 90), Runtime: "/long"}
	if err := p.Create(); err == nil || !strings.Contains(err.Error(), "XDG_RUNTIME_DIR") {
		t.Errorf("Create: got %v, want an error that names XDG_RUNTIME_DIR", err)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(Template())
	f.Add("[hub]\nurl = 3\n[[x]]\n\"a.b\" = {c = 1}\n")
	f.Fuzz(func(t *testing.T, text string) {
		file := write(t, text)
		s, _, err := Load(Options{File: file})
		var refused *Error
		if err != nil && !errors.As(err, &refused) {
			t.Fatalf("got %v, want an *Error with the place", err)
		}
		// L1: no document sets an address other than loopback.
		if err == nil && s.FrontDoor.Address != "127.0.0.1" && s.FrontDoor.Address != "[::1]" {
			t.Fatalf("got address %q, want a loopback literal", s.FrontDoor.Address)
		}
	})
}

// O1: the issuer is derived from the hub's URL, or is the configured one, byte for byte.
func TestIssuer(t *testing.T) {
	for issuer, want := range map[string]string{
		"":                               "https://hub.example/api/v1/auth/native",
		"https://login.example":          "https://login.example",
		"https://login.example/":         "https://login.example/",
		"https://login.example/realms/a": "https://login.example/realms/a",
	} {
		s, _, err := Load(Options{Flags: []string{"hub.url=https://hub.example", "hub.issuer=" + issuer}})
		if err != nil || s.Hub.Issuer() != want {
			t.Errorf("hub.issuer = %q: got %q (%v), want %q", issuer, s.Hub.Issuer(), err, want)
		}
	}
}

// R13: the size of the prompt cache is automatic, none, or given.
func TestPromptCache(t *testing.T) {
	for text, want := range map[string]int64{`"auto"`: CacheAuto, `"0"`: 0, `"256MiB"`: 256 << 20} {
		settings, _, err := Load(Options{File: write(t, "[runtime]\nprompt_cache = "+text)})
		if err != nil || settings.Runtime.PromptCache != want {
			t.Errorf("prompt_cache = %s: got %d, %v; want %d", text, settings.Runtime.PromptCache, err, want)
		}
	}
	if settings, _, err := Load(Options{}); err != nil || settings.Runtime.PromptCache != CacheAuto {
		t.Errorf("without the key: got %d, %v; want %d", settings.Runtime.PromptCache, err, CacheAuto)
	}
}
