package guard

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"companion/messages"
)

const (
	editorToken   = "RWRpdG9yVG9rZW5FZGl0b3JUb2tlbkVkaXRvclRva2U"
	serviceToken  = "U2VydmljZVRva2VuU2VydmljZVRva2VuU2VydmljZVQ"
	editorExpires = int64(1_000_000_000)
)

// applications are an editor whose token expires, and a service whose token does not.
func applications(editor, service *Window) []Application {
	return []Application{
		{Name: "editor", Digest: sha256.Sum256([]byte(editorToken)), Expires: editorExpires, Window: editor},
		{Name: "service", Digest: sha256.Sum256([]byte(serviceToken)), Window: service},
	}
}

func withApplications() *Tokens {
	return NewTokens(messages.NewSecret(userToken), messages.NewSecret(probeToken), applications(NewWindow(100, minute), NewWindow(100, minute))...)
}

func from(token string) *Request {
	return &Request{Method: "GET", Host: goodHost, Header: headers("Authorization: Bearer " + token)}
}

// L14: an application token is admitted as that application until the wall clock reaches its expiry. The token of the
// start is unaffected.
func TestApplicationTokens(t *testing.T) {
	tokens := withApplications()
	for name, c := range map[string]struct {
		token, application string
		wall               int64
		want               Verdict
	}{
		"before the expiry":         {editorToken, "editor", editorExpires - 1, ok},
		"at the expiry":             {editorToken, "", editorExpires, tokenInvalid},
		"after the expiry":          {editorToken, "", editorExpires + 1, tokenInvalid},
		"no expiry":                 {serviceToken, "service", 1 << 62, ok},
		"no expiry, before 1970":    {serviceToken, "service", -1, ok},
		"a part":                    {editorToken[1:], "", 0, tokenInvalid},
		"longer":                    {editorToken + "x", "", 0, tokenInvalid},
		"the digest itself":         {fmt.Sprintf("%x", sha256.Sum256([]byte(editorToken))), "", 0, tokenInvalid},
		"the token of the start":    {userToken, "", editorExpires, ok},
		"the token of health probe": {probeToken, "", editorExpires, ok},
	} {
		r := from(c.token)
		r.Wall = c.wall
		got, caller := Decide(r, tokens, four, roomy())
		application := ""
		if a := tokens.Application(caller); a != nil {
			application = a.Name
		}
		if got != c.want || application != c.application {
			t.Errorf("%s: got %+v and application %q, want %+v and %q", name, got, application, c.want, c.application)
		}
	}
	for _, c := range []Caller{Nobody, User, Probe, -1, firstApplication + 2} {
		if a := tokens.Application(c); a != nil {
			t.Errorf("caller %d: got application %q, want none", c, a.Name)
		}
	}
}

// L14: each application has a window of its own; a full one affects no other caller. An expired token counts as wrong.
func TestApplicationsHaveTheirOwnRate(t *testing.T) {
	tokens := NewTokens(messages.NewSecret(userToken), messages.Secret{}, applications(NewWindow(2, minute), NewWindow(1, minute))...)
	w := &Windows{Failures: NewWindow(1, minute), Admitted: NewWindow(1, minute)}
	expired := from(editorToken)
	expired.Wall = editorExpires
	for i, step := range []struct {
		r    *Request
		want Verdict
	}{
		{from(editorToken), ok}, {from(editorToken), ok}, {from(editorToken), rateLimited},
		{from(serviceToken), ok}, {from(serviceToken), rateLimited},
		{from(userToken), ok}, {from(userToken), rateLimited},
		{expired, tokenInvalid}, {from("guess"), rateLimited},
	} {
		if got, _ := Decide(step.r, tokens, four, w); got != step.want {
			t.Errorf("request %d: got %+v, want %+v", i, got, step.want)
		}
	}
	none := NewTokens(messages.Secret{}, messages.Secret{}, applications(nil, nil)...)
	if got, _ := Decide(from(editorToken), none, four, roomy()); got != rateUnavailable {
		t.Errorf("an application without a window: got %+v, want %+v", got, rateUnavailable)
	}
}

// L14: MaxApplications tokens are admitted, and no more. A token that several callers have gives the fewest rights.
func TestApplicationBound(t *testing.T) {
	var many []Application
	for i := range MaxApplications + 1 {
		many = append(many, Application{Name: fmt.Sprint(i), Digest: sha256.Sum256([]byte(fmt.Sprint("token", i))), Window: NewWindow(1, minute)})
	}
	tokens := NewTokens(messages.NewSecret("token3"), messages.NewSecret("token4"), many...)
	for i := range MaxApplications + 1 {
		want := firstApplication + Caller(i)
		switch i {
		case 4:
			want = Probe
		case MaxApplications:
			want = Nobody
		}
		if got := tokens.identify(fmt.Sprint("token", i), 0); got != want {
			t.Errorf("token %d: got caller %d, want %d", i, got, want)
		}
	}
	if got := NewTokens(messages.Secret{}, messages.Secret{}, Application{}).identify("", 0); got != Nobody {
		t.Errorf("no token and an empty digest: got caller %d, want %d", got, Nobody)
	}
}

// L14: digests are equal only in all their bits.
func TestDigestEqual(t *testing.T) {
	a := wordsOf(sha256.Sum256([]byte("a")))
	for bit := range 256 {
		b := a
		b[bit/64] ^= 1 << (bit % 64)
		if a.equal(&b) != 0 {
			t.Errorf("digests that differ in bit %d: got equal, want not", bit)
		}
	}
	if b := a; a.equal(&b) != 1 {
		t.Error("the same digest: got not equal, want equal")
	}
}

// Issue 4, L14: with all application tokens Decide allocates nothing.
func TestDecideWithApplicationsDoesNotAllocate(t *testing.T) {
	tokens := fullHouse()
	for _, token := range []string{userToken, editorToken, "guess", strings.Repeat("x", 4000)} {
		w, r := roomy(), from(token)
		if n := testing.AllocsPerRun(200, func() { r.Now += minute; Decide(r, tokens, four, w) }); n != 0 {
			t.Errorf("a token of %d bytes: got %v allocations, want 0", len(token), n)
		}
	}
}

// fullHouse has as many application tokens as there may be; the editor's is the last.
func fullHouse() *Tokens {
	var all []Application
	for i := range MaxApplications - 1 {
		all = append(all, Application{Digest: sha256.Sum256([]byte(fmt.Sprint(i))), Expires: editorExpires, Window: NewWindow(1, minute)})
	}
	all = append(all, applications(NewWindow(1000, 1000), nil)[0])
	return NewTokens(messages.NewSecret(userToken), messages.NewSecret(probeToken), all...)
}

// BenchmarkFiguresGuardApplications measures an admitted request of the user and of an application while there are as
// many application tokens as there may be: at most 1 µs and no allocation.
func BenchmarkFiguresGuardApplications(b *testing.B) {
	for name, token := range map[string]string{"user": userToken, "application": editorToken, "wrong": "guess"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			tokens, r := fullHouse(), from(token)
			w := &Windows{NewWindow(1000, 1000), NewWindow(1000, 1000), NewWindow(1000, 1000)}
			for b.Loop() {
				r.Now += 2
				Decide(r, tokens, four, w)
			}
		})
	}
}
