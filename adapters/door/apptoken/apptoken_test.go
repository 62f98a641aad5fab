package apptoken

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"companion/adapters/door/guard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func place(t *testing.T) string { return filepath.Join(t.TempDir(), "state", "tokens.json") }

// L14: a token is 32 random bytes; the private file has its digest and not the token.
func TestAdd(t *testing.T) {
	path := place(t)
	token, made, err := Add(t.Context(), path, "zed", 30*24*time.Hour, 100)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(token.Reveal())
	if err != nil || len(raw) != 32 {
		t.Errorf("token: got %d bytes, %v, want 32", len(raw), err)
	}
	if made.Sum() != sha256.Sum256([]byte(token.Reveal())) {
		t.Error("got another digest than that of the token, want that one")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), token.Reveal()) || strings.Contains(string(text), fmt.Sprintf("%x", raw)) {
		t.Error("got the token in the file, want only its digest")
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode: got %o, want 600", info.Mode().Perm())
	}
	all, err := Load(path)
	if err != nil || len(all) != 1 {
		t.Fatalf("got %v, %v, want one token", all, err)
	}
	got := all[0]
	if got.Name != "zed" || got.Rate != 100 || got.Digest != made.Digest || !got.Created.Equal(made.Created) || got.Expires == nil || got.Expires.Sub(got.Created) != 30*24*time.Hour {
		t.Errorf("got %+v, want %+v", got, made)
	}
	second, _, err := Add(t.Context(), path, "aider", 0, 0)
	if err != nil || second.Reveal() == token.Reveal() {
		t.Errorf("a second token: got the same one or %v, want another one", err)
	}
	if all, _ := Load(path); len(all) != 2 || all[1].Expires != nil || all[1].Rate != 0 {
		t.Errorf("got %+v, want a second token without expiry and rate", all)
	}
}

// L14: a revoked token is out of the file, and only that one.
func TestRevoke(t *testing.T) {
	path := place(t)
	for _, name := range []string{"a", "b", "c"} {
		if _, _, err := Add(t.Context(), path, name, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := Revoke(t.Context(), path, "b"); err != nil {
		t.Fatal(err)
	}
	all, err := Load(path)
	if err != nil || len(all) != 2 || all[0].Name != "a" || all[1].Name != "c" {
		t.Errorf("got %+v, %v, want a and c", all, err)
	}
	if err := Revoke(t.Context(), path, "b"); !errors.Is(err, ErrNotFound) {
		t.Errorf("twice: got %v, want %v", err, ErrNotFound)
	}
}

// L14: names, lifetimes and rates have bounds, a live name is not taken twice, and there are only so many tokens.
func TestAddRefuses(t *testing.T) {
	path := place(t)
	if _, _, err := Add(t.Context(), path, "taken", 0, 0); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		name     string
		lifetime time.Duration
		rate     int
		want     error
	}{
		"empty": {"", 0, 0, ErrName}, "slash": {"a/b", 0, 0, ErrName}, "dot first": {".a", 0, 0, ErrName}, "control": {"a\n", 0, 0, ErrName},
		"65 letters": {strings.Repeat("a", 65), 0, 0, ErrName}, "other script": {"ä", 0, 0, ErrName}, "taken": {"taken", 0, 0, ErrExists},
		"short": {"x", time.Second - 1, 0, ErrLifetime}, "past": {"x", -time.Hour, 0, ErrLifetime}, "long": {"x", MaxLifetime + 1, 0, ErrLifetime},
		"negative rate": {"x", 0, -1, ErrRate}, "high rate": {"x", 0, MaxRate + 1, ErrRate},
	} {
		if token, _, err := Add(t.Context(), path, c.name, c.lifetime, c.rate); !errors.Is(err, c.want) || !token.IsZero() {
			t.Errorf("%s: got %v, want %v and no token", name, err, c.want)
		}
	}
	if _, _, err := Add(t.Context(), path, strings.Repeat("a", 64), MaxLifetime, MaxRate); err != nil {
		t.Errorf("at the bounds: got %v, want none", err)
	}
	for i := range guard.MaxApplications - 2 {
		if _, _, err := Add(t.Context(), path, fmt.Sprint("n", i), 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := Add(t.Context(), path, "one-more", 0, 0); !errors.Is(err, ErrTooMany) {
		t.Errorf("one more than there may be: got %v, want %v", err, ErrTooMany)
	}
}

// L14: the name of an expired token can be given again.
func TestExpiredNameIsFree(t *testing.T) {
	path := place(t)
	if _, _, err := Add(t.Context(), path, "a", time.Second, 0); err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(path)
	all, _ := Load(path)
	expired := strings.Replace(string(text), all[0].Expires.Format(time.RFC3339Nano), "2001-01-01T00:00:00Z", 1)
	if err := os.WriteFile(path, []byte(expired), 0o600); err != nil {
		t.Fatal(err)
	}
	if all, _ := Load(path); !all[0].Expired(time.Now()) || all[0].Expired(time.Unix(0, 0)) {
		t.Fatalf("got %+v, want a token that expired in 2001", all)
	}
	if _, _, err := Add(t.Context(), path, "a", 0, 0); err != nil {
		t.Errorf("got %v, want the name again", err)
	}
	if all, _ := Load(path); len(all) != 1 || all[0].Expires != nil {
		t.Errorf("got %+v, want only the new token", all)
	}
}

// L14: a file that is not private or not well formed gives no token, and no command overwrites it.
func TestLoadRefuses(t *testing.T) {
	digest := strings.Repeat("ab", 32)
	entry := func(name, digest, more string) string {
		return `{"name":"` + name + `","digest":"` + digest + `","created":"2026-01-01T00:00:00Z","expires":null,"ratePerMinute":0` + more + `}`
	}
	file := func(entries ...string) string { return `{"version":1,"tokens":[` + strings.Join(entries, ",") + `]}` }
	var many []string
	for i := range guard.MaxApplications + 1 {
		many = append(many, entry(fmt.Sprint("n", i), digest, ""))
	}
	path := filepath.Join(t.TempDir(), "tokens.json")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		_ = os.Remove(path)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	write(file(entry("a", digest, "")), 0o600)
	if all, err := Load(path); err != nil || len(all) != 1 {
		t.Fatalf("a good file: got %v, %v, want one token", all, err)
	}
	for name, text := range map[string]string{
		"empty": "", "not JSON": "x", "another version": `{"version":2,"tokens":[]}`, "unknown field": file(entry("a", digest, `,"x":1`)),
		"more after it": file() + "{}", "twice": file(entry("a", digest, ""), entry("a", digest, "")), "bad name": file(entry("a b", digest, "")),
		"short digest": file(entry("a", digest[2:], "")), "no hex": file(entry("a", "zz"+digest[2:], "")), "too many": file(many...),
		"too long":      file() + strings.Repeat(" ", maxFile),
		"negative rate": strings.Replace(file(entry("a", digest, "")), `Minute":0`, `Minute":-1`, 1),
	} {
		write(text, 0o600)
		if all, err := Load(path); err == nil || all != nil {
			t.Errorf("%s: got %v, want an error and no token", name, all)
		}
		if _, _, err := Add(t.Context(), path, "b", 0, 0); err == nil {
			t.Errorf("%s: Add got none, want an error", name)
		}
		if after, _ := os.ReadFile(path); string(after) != text {
			t.Errorf("%s: got another file after a refused Add, want it unchanged", name)
		}
	}
	write(file(entry("a", digest, "")), 0o644)
	if _, err := Load(path); err == nil {
		t.Error("a file that others may read: got none, want an error")
	}
}

// L14: commands that run at once do not lose each other's change; one that waits ends with its context.
func TestParallelCommands(t *testing.T) {
	path := place(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			if _, _, err := Add(t.Context(), path, fmt.Sprint("n", i), 0, 0); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got, err := Load(path); err != nil || len(got) != 8 {
		t.Errorf("got %d tokens, %v, want 8", len(got), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := change(t.Context(), path, func(before []Entry) ([]Entry, error) {
		cancel()
		if err := Revoke(ctx, path, "n0"); !errors.Is(err, context.Canceled) {
			t.Errorf("while another command has the lock: got %v, want %v", err, context.Canceled)
		}
		return before, nil
	})
	if err != nil {
		t.Error(err)
	}
}
