package origin_test

import (
	"errors"
	"net/url"
	"path"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"companion/adapters/origin"
	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	malformed = messages.ReasonMalformedSpec
	scheme    = messages.ReasonSchemeNotAllowed
	foreign   = messages.ReasonSourceNotAllowed
)

// M4, T6
func TestAllowed(t *testing.T) {
	one := []string{"https://models.example"}
	deep := []string{"https://models.example/v1/", "https://mirror.example:8443/a/b"}
	for _, c := range []struct {
		url     string
		origins []string
		want    messages.Reason
	}{
		{"https://models.example/g.gguf", one, messages.ReasonOK},
		{"HTTPS://MODELS.example/g.gguf", one, messages.ReasonOK},
		{"https://models.example:443/g.gguf", one, messages.ReasonOK},
		{"https://models.example/g.gguf?part=1", one, messages.ReasonOK},
		{"https://models.example", one, messages.ReasonOK},
		{"https://models.example/v1/g.gguf", deep, messages.ReasonOK},
		{"https://models.example/%761/g.gguf", deep, messages.ReasonOK},
		{"https://mirror.example:8443/a/b/c", deep, messages.ReasonOK},
		{"https://[::1]:9/x", []string{"https://[::1]:9/"}, messages.ReasonOK},

		{"https://models.example.evil.net/g.gguf", one, foreign},
		{"https://models.example.evil.net", one, foreign},
		{"https://models.exampleevil.net/g.gguf", one, foreign},
		{"https://evil.net/models.example", one, foreign},
		{"https://evil.net/?https://models.example/", one, foreign},
		{"https://sub.models.example/g.gguf", one, foreign},
		{"https://models.example./g.gguf", one, foreign},
		{"https://models.example:8443/g.gguf", one, foreign},
		{"https://models.example/v10/g.gguf", deep, foreign},
		{"https://models.example/V1/g.gguf", deep, foreign},
		{"https://models.example/", deep, foreign},
		{"https://mirror.example/a/b/c", deep, foreign},
		{"https://mirror.example:8443/a/bc", deep, foreign},
		{"https://models.example/g.gguf", nil, foreign},

		{"http://models.example/g.gguf", one, scheme},
		{"ftp://models.example/g.gguf", one, scheme},
		{"file://models.example/g.gguf", one, scheme},

		{"", one, malformed},
		{"https://", one, malformed},
		{"https:///g.gguf", one, malformed},
		{"https:models.example/g.gguf", one, malformed},
		{"//models.example/g.gguf", one, malformed},
		{"/g.gguf", one, malformed},
		{"https://user@models.example/g.gguf", one, malformed},
		{"https://user:pw@models.example/g.gguf", one, malformed},
		{"https://@models.example/g.gguf", one, malformed},
		{"https://models.example@evil.net/g.gguf", one, malformed},
		{"https://models.example/g.gguf#x", one, malformed},
		{"https://models.example/g.gguf#", one, malformed},
		{"https://models.example:/g.gguf", one, malformed},
		{"https://models.example:x/g.gguf", one, malformed},
		{"https://models.example/v1/../g.gguf", deep, malformed},
		{"https://models.example/v1/./g.gguf", deep, malformed},
		{"https://models.example/v1/%2e%2e/g.gguf", deep, malformed},
		{"https://models.example/v1/.%2E/g.gguf", deep, malformed},
		{"https://models.example/v1/%2e/g.gguf", deep, malformed},
		{"https://models.example/v1/%252e%252e/g.gguf", deep, malformed},
		{"https://models.example/v1/..%2fg.gguf", deep, malformed},
		{"https://models.example/v1/..%5cg.gguf", deep, malformed},
		{`https://models.example/v1/..\g.gguf`, deep, malformed},
		{`https://models.example\@evil.net/g.gguf`, one, malformed},
		{"https://models.example/v1//g.gguf", deep, malformed},
		{"https://models.example/%zz", one, malformed},
		{"https://models.example/a b", one, malformed},
		{"https://models.example/a\x00b", one, malformed},
		{"https://models.example/a\r\nb", one, malformed},
		{"https://mödels.example/a", one, malformed},
		{"https://[fe80::1%25eth0]/a", one, malformed},
		{"https://models.example/" + strings.Repeat("a", 9000), one, malformed},

		{"https://models.example/g.gguf", []string{"https://models.example", "nonsense"}, malformed},
		{"https://models.example/g.gguf", []string{"https://models.example?x=1"}, malformed},
		{"https://models.example/g.gguf", []string{"http://models.example"}, scheme},
		{"https://models.example/g.gguf", []string{"https://u@models.example"}, malformed},
	} {
		err := origin.Allowed(c.url, c.origins)
		if got := reason(t, err); got != c.want {
			t.Errorf("Allowed(%q, %q) = %v, want %v", c.url, c.origins, got, c.want)
		}
		if err != nil && len(c.url) > 8 && strings.Contains(err.Error(), c.url) {
			t.Errorf("the error holds the URL: %v", err)
		}
	}
}

func TestHost(t *testing.T) {
	for raw, want := range map[string]string{
		"https://Models.Example:8443/a": "models.example",
		"https://[::1]:9/a":             "::1",
		"http://models.example/":        "",
	} {
		if got, _ := origin.Host(raw); got != want {
			t.Errorf("Host(%q) = %q, want %q", raw, got, want)
		}
	}
}

// M4: whatever is accepted is, read by net/url after cleaning, still inside the origin.
func FuzzAllowed(f *testing.F) {
	for _, s := range []string{
		"https://models.example/v1/g.gguf", "https://models.example.evil.net/v1/g", "https://models.example/v1/%2e%2e/x",
		"https://a@models.example/v1/x", "https://models.example:443/v1/x?y=z", `https://models.example\v1/`, "https://models.example/v1/%252e",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if origin.Allowed(raw, []string{"https://models.example/v1/"}) != nil {
			return
		}
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatalf("accepted %q, which does not parse", raw)
		}
		clean := path.Clean(u.Path)
		if u.Scheme != "https" || u.User != nil || u.Fragment != "" || !strings.EqualFold(u.Hostname(), "models.example") ||
			(u.Port() != "" && u.Port() != "443") || (clean != "/v1" && !strings.HasPrefix(clean, "/v1/")) {
			t.Fatalf("accepted %q", raw)
		}
	})
}

func reason(t *testing.T, err error) messages.Reason {
	t.Helper()
	if err == nil {
		return messages.ReasonOK
	}
	var e *origin.Error
	if !errors.As(err, &e) {
		t.Fatalf("not a source.Error: %T", err)
	}
	return e.Reason
}
