package guard

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"companion/messages"
)

// L3 stage 3: a loopback name has a port of 1 to 65535 in at most five decimal digits. Each row is next to a
// bound.
func TestLoopbackName(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1:1": true, "127.0.0.1:9": true, "127.0.0.1:10": true, "127.0.0.1:65535": true, "[::1]:80": true, "LOCALHOST:80": true,
		"localhost:00001": true, // five digits; only a listed port is admitted
		"127.0.0.1":       false, "localhost": false, "": false, ":": false, ":80": false,
		"127.0.0.1:": false, "127.0.0.1:0": false, "127.0.0.1:00000": false, "127.0.0.1:65536": false, "127.0.0.1:70000": false,
		"127.0.0.1:99999": false, "127.0.0.1:100000": false, "127.0.0.1:000001": false,
		"127.0.0.1:/": false, "127.0.0.1:8/": false, "127.0.0.1:/8": false, "127.0.0.1:a": false, "127.0.0.1:8a": false, "127.0.0.1:-1": false,
		"127.0.0.1:+1": false, "127.0.0.1:8 ": false, "::1:80": false, "[::1]": false, "127.0.0.1:80:80": false,
	} {
		if got := loopbackName(host); got != want {
			t.Errorf("loopbackName(%q): got %v, want %v", host, got, want)
		}
	}
	for port, want := range map[string]bool{"0": false, "1": true, "9": true, ":": false, "1:": false, "/": false, "12345": true, "123456": false, "": false} {
		if got := portNumber(port); got != want {
			t.Errorf("portNumber(%q): got %v, want %v", port, got, want)
		}
	}
}

// L3 stage 3: a listed host that is not a loopback name is refused, and so is a loopback name that is not listed.
func TestHostAllowed(t *testing.T) {
	for _, c := range []struct {
		host, listed string
		want         bool
	}{
		{"127.0.0.1:80", "127.0.0.1:80", true}, {"LocalHost:80", "localhost:80", true},
		{"127.0.0.1:80", "127.0.0.1:81", false}, {"evil.example:80", "evil.example:80", false}, {"127.0.0.1:0", "127.0.0.1:0", false},
	} {
		if got := hostAllowed(c.host, []string{"x:1", c.listed}); got != c.want {
			t.Errorf("%s on a list with %s: got %v, want %v", c.host, c.listed, got, c.want)
		}
	}
}

// L3: same folds only the letters A to Z.
func TestSame(t *testing.T) {
	for c := range 256 {
		for lower := range 256 {
			if 'A' <= lower && lower <= 'Z' {
				continue // lower has no upper-case letters
			}
			got := same(string([]byte{byte(c)}), string([]byte{byte(lower)}))
			if want := c == lower || 'A' <= c && c <= 'Z' && c+'a'-'A' == lower; got != want {
				t.Fatalf("bytes %#x and %#x: got %v, want %v", c, lower, got, want)
			}
		}
	}
	for _, pair := range [][2]string{{"", "a"}, {"a", ""}, {"ab", "a"}, {"a", "ab"}, {"ab", "ac"}} {
		if same(pair[0], pair[1]) {
			t.Errorf("%q and %q: got the same, want not", pair[0], pair[1])
		}
	}
}

// L4: the scheme is Bearer in upper or lower case, followed by one or more spaces.
func TestBearerToken(t *testing.T) {
	for value, want := range map[string]string{
		"Bearer x": "x", "bearer   x": "x", " \tBearer x\t ": "x", "Bearer x y": "x y", "Bearer \tx": "\tx",
		"": "", "Bearer": "", "Bearer ": "", "Bearerx": "", "Bearer\tx": "", "Bearex x": "", "Beare": "", "x": "", "XBearer x": "",
	} {
		if got := bearerToken(value); got != want {
			t.Errorf("%q: got %q, want %q", value, got, want)
		}
	}
}

// L3 stage 6, K6: tokens of up to 128 bytes can be valid, and a longer one that begins with a valid one is not. If both
// tokens are equal, the caller gets the fewer rights. Without a configured token no request is admitted.
func TestIdentify(t *testing.T) {
	exact := strings.Repeat("x", longest)
	tokens := NewTokens(messages.NewSecret(exact), messages.NewSecret("p"))
	for presented, want := range map[string]Caller{
		exact: User, "p": Probe, exact + "x": Nobody, exact + "\x00": Nobody, exact[1:]: Nobody, "": Nobody, "P": Nobody, "pp": Nobody,
	} {
		if got := tokens.identify(presented, 0); got != want {
			t.Errorf("a token of %d bytes: got caller %d, want %d", len(presented), got, want)
		}
	}
	long := NewTokens(messages.NewSecret(exact+"y"), messages.Secret{})
	for _, presented := range []string{exact, exact + "y"} {
		if got := long.identify(presented, 0); got != Nobody {
			t.Errorf("a configured token that is too long, presented with %d bytes: got caller %d, want %d", len(presented), got, Nobody)
		}
	}
	if got := NewTokens(messages.NewSecret("t"), messages.NewSecret("t")).identify("t", 0); got != Probe {
		t.Errorf("equal tokens: got caller %d, want %d", got, Probe)
	}
	for name, c := range map[string]struct {
		user, probe string
		want        Caller
	}{"user only": {"t", "", User}, "probe only": {"", "t", Probe}, "none": {"", "", Nobody}} {
		if got := NewTokens(messages.NewSecret(c.user), messages.NewSecret(c.probe)).identify("t", 0); got != c.want {
			t.Errorf("%s: got caller %d, want %d", name, got, c.want)
		}
	}
	if got := new(Tokens).identify("", 0); got != Nobody {
		t.Errorf("the zero Tokens: got caller %d, want %d", got, Nobody)
	}
}

// L3 stage 5: only positive numbers make a window, and a damaged one refuses.
func TestWindowBounds(t *testing.T) {
	for _, c := range []struct {
		max    int
		length int64
		want   rate
	}{{1, 1, free}, {0, 1, broken}, {-1, 1, broken}, {1, 0, broken}, {1, -1, broken}} {
		if got := NewWindow(c.max, c.length).take(0); got != c.want {
			t.Errorf("%d events in %d ns: got %d, want %d", c.max, c.length, got, c.want)
		}
	}
	for name, w := range map[string]*Window{
		"negative cursor": {max: 1, length: 1, times: make([]int64, 1), next: -1}, "negative max": {max: -1, length: 1},
		"negative length": {max: 1, length: -1, times: make([]int64, 1)}, "zero length": {max: 1, times: make([]int64, 1)}, "cursor at the end": {max: 2, length: 1, times: make([]int64, 2), next: 2},
		"one event too many": {max: 1, length: 1, times: make([]int64, 2)},
	} {
		if got := w.take(5); got != broken {
			t.Errorf("%s: got %d, want %d", name, got, broken)
		}
	}
}

// L3 stage 5: against a model that keeps every admitted event. Requests may read the clock in one order and take
// the lock in the other; an event then counts at the time of the latest one before it, which admits no more.
func TestWindowAgreesWithModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most, length := rapid.IntRange(1, 5).Draw(t, "max"), rapid.Int64Range(1, 20).Draw(t, "length")
		w := NewWindow(most, length)
		var admitted []int64
		now := int64(0)
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			now = max(0, now+rapid.Int64Range(-5, 10).Draw(t, "step"))
			at := now
			if n := len(admitted); n > 0 {
				at = max(at, admitted[n-1])
			}
			want := free
			if n := len(admitted); n >= most && at-admitted[n-most] < length {
				want = full
			}
			if got := w.take(now); got != want {
				t.Fatalf("at %d after %v, %d in %d: got %d, want %d", now, admitted, most, length, got, want)
			}
			if want == free {
				admitted = append(admitted, at)
			}
			if cap(w.times) > most {
				t.Fatalf("got memory for %d events, want %d", cap(w.times), most)
			}
		}
	})
}
