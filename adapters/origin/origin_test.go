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

// M4, T6: what is inside an allowed origin, and what is refused for which reason.
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
		{"https://models.example/a\x7fb", one, malformed},
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
			t.Errorf("got error %v, want one without the URL", err)
		}
	}
}

// M4: a URL of exactly the maximum length is accepted, a longer one is not.
func TestLength(t *testing.T) {
	const prefix, most = "https://models.example/", 8192
	for length, want := range map[int]messages.Reason{most: messages.ReasonOK, most + 1: malformed} {
		err := origin.Allowed(prefix+strings.Repeat("a", length-len(prefix)), []string{"https://models.example"})
		if got := reason(t, err); got != want {
			t.Errorf("%d bytes: got %v, want %v", length, got, want)
		}
	}
}

// The error says which kind of character is wrong: every control character, a space, and every byte from DEL.
func TestForbiddenCharacters(t *testing.T) {
	for c := range 256 {
		err := origin.Allowed("https://models.example/a"+string([]byte{byte(c)})+"b", []string{"https://models.example"})
		forbidden := c <= ' ' || c >= 0x7f || c == '\\' || c == '#'
		if got := err != nil && strings.Contains(err.Error(), "not allowed in a URL"); got != forbidden {
			t.Errorf("byte %#x: got %v, want a refusal of the character: %t", c, err, forbidden)
		}
	}
}

// Host is the host name in lower case, without port and brackets, and empty for a refused URL.
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

// M4: a URL that is accepted is still inside the origin when net/url parses it and the path is cleaned.
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
			t.Fatalf("accepted %q, want a URL that net/url parses: %v", raw, err)
		}
		clean := path.Clean(u.Path)
		if u.Scheme != "https" || u.User != nil || u.Fragment != "" || !strings.EqualFold(u.Hostname(), "models.example") ||
			(u.Port() != "" && u.Port() != "443") || (clean != "/v1" && !strings.HasPrefix(clean, "/v1/")) {
			t.Fatalf("accepted %q, want it refused: it is outside the origin", raw)
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
		t.Fatalf("got %T, want *origin.Error", err)
	}
	return e.Reason
}
