package oauth

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"testing"

	"companion/messages"
)

// O1, RFC 8414 section 3.1: the document is appended to the issuer, or inserted between host and path.
func TestLocations(t *testing.T) {
	for issuer, want := range map[string][]string{
		"https://hub.example":               {"https://hub.example/.well-known/oauth-authorization-server"},
		"https://hub.example/":              {"https://hub.example/.well-known/oauth-authorization-server"},
		"https://hub.example:8443/realms/a": {"https://hub.example:8443/realms/a/.well-known/oauth-authorization-server", "https://hub.example:8443/.well-known/oauth-authorization-server/realms/a"},
		"https://hub.example/realms/a/":     {"https://hub.example/realms/a/.well-known/oauth-authorization-server", "https://hub.example/.well-known/oauth-authorization-server/realms/a"},
		"https://hub.example/a%2Fb":         {"https://hub.example/a%2Fb/.well-known/oauth-authorization-server", "https://hub.example/.well-known/oauth-authorization-server/a%2Fb"},
	} {
		if got := locations(issuer); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %q, want %q", issuer, got, want)
		}
	}
}

// O1: the second location is requested only if the first has no document.
func TestDiscover(t *testing.T) {
	const appended, inserted = "/api/v1/auth/native" + wellKnown, wellKnown + "/api/v1/auth/native"
	document, _ := json.Marshal(goodMetadata())
	foreign, _ := json.Marshal(map[string]any{"issuer": "https://evil.example"})
	type answer struct {
		status int
		body   string
	}
	good, none := answer{200, string(document)}, answer{404, "not here"}
	for name, row := range map[string]struct {
		at    map[string]answer
		want  messages.Reason
		asked string
	}{
		"appended":                  {map[string]answer{appended: good, inserted: none}, messages.ReasonOK, "[" + appended + "]"},
		"inserted":                  {map[string]answer{appended: none, inserted: good}, messages.ReasonOK, "[" + appended + " " + inserted + "]"},
		"a web page for every path": {map[string]answer{appended: {200, "<html>"}, inserted: good}, messages.ReasonOK, "[" + appended + " " + inserted + "]"},
		"nowhere":                   {map[string]answer{appended: none, inserted: none}, messages.ReasonMetadataInvalid, "[" + appended + " " + inserted + "]"},
		"broken":                    {map[string]answer{appended: {503, ""}, inserted: good}, messages.ReasonHubUnreachable, "[" + appended + "]"},
		"too many requests":         {map[string]answer{appended: {429, ""}, inserted: good}, messages.ReasonHubUnreachable, "[" + appended + "]"},
		"of another issuer":         {map[string]answer{appended: {200, string(foreign)}, inserted: good}, messages.ReasonIssuerMismatch, "[" + appended + "]"},
	} {
		t.Run(name, func(t *testing.T) {
			var asked []string
			handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = append(asked, r.URL.Path)
				w.WriteHeader(row.at[r.URL.Path].status)
				_, _ = fmt.Fprint(w, row.at[r.URL.Path].body)
			})
			c, err := New(Config{Issuer: testIssuer, SessionURL: "https://hub.example/s", HTTP: &http.Client{Transport: handled{handler}}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.discover(t.Context()); reasonOf(err) != row.want {
				t.Errorf("got %v, want %s", err, row.want)
			}
			if got := fmt.Sprint(asked); got != row.asked {
				t.Errorf("requests: got %s, want %s", got, row.asked)
			}
		})
	}
}
