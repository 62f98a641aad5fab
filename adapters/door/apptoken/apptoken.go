// Package apptoken keeps the application tokens of L14: named tokens that the user makes for programs that `companion
// exec` cannot start, such as editors and services. The file holds digests, never tokens. The command line changes the
// file, under a lock; the front door reads it.
package apptoken

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/gofrs/flock"

	"companion/adapters/door/guard"
	"companion/adapters/privatefs"
	"companion/messages"
)

// Limits of a token.
const (
	MaxRate     = 100_000 // requests a minute, as of front_door.rate_per_minute
	MaxLifetime = 10 * 365 * 24 * time.Hour
	MinLifetime = time.Second
)

const (
	fileVersion = 1
	maxFile     = 64 << 10
	tokenBytes  = 32

	lockWithin = 5 * time.Second
	lockEvery  = 20 * time.Millisecond
)

// Entry is one token in the file.
type Entry struct {
	Name    string     `json:"name"`
	Digest  string     `json:"digest"` // SHA-256 of the token, in hex
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires"`       // nil: never
	Rate    int        `json:"ratePerMinute"` // 0: front_door.rate_per_minute
}

// Expired reports whether the token is no longer valid at now.
func (e Entry) Expired(now time.Time) bool { return e.Expires != nil && !now.Before(*e.Expires) }

// Sum returns the digest. Load has checked it.
func (e Entry) Sum() (sum [sha256.Size]byte) {
	_, _ = hex.Decode(sum[:], []byte(e.Digest))
	return sum
}

type file struct {
	Version int     `json:"version"`
	Tokens  []Entry `json:"tokens"`
}

// The refusals of Add and Revoke.
var (
	ErrName     = errors.New("a token's name has 1 to 64 letters, digits, '.', '_' or '-', and begins with a letter or digit")
	ErrExists   = errors.New("there is already a token with this name")
	ErrTooMany  = fmt.Errorf("there are %d application tokens, which is the most", guard.MaxApplications)
	ErrNotFound = errors.New("there is no application token with this name")
	ErrLifetime = errors.New("a token lives from 1s to 3650d")
	ErrRate     = fmt.Errorf("a token's rate is from 1 to %d requests a minute", MaxRate)
)

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Load reads the file. A missing file has no tokens. Any other file must be private and well formed; otherwise Load
// returns an error and no token.
func Load(path string) ([]Entry, error) {
	if err := privatefs.CheckFile(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, fmt.Errorf("checking the application tokens: %w", err)
	}
	opened, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the application tokens: %w", err)
	}
	defer opened.Close()
	data, err := io.ReadAll(io.LimitReader(opened, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading the application tokens: %w", err)
	}
	entries, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be used: %w; move it away and add the tokens again", path, err)
	}
	return entries, nil
}

func decode(data []byte) ([]Entry, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("it is longer than %d bytes", maxFile)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	var f file
	if err := decoder.Decode(&f); err != nil {
		return nil, errors.New("it is not JSON of the known form")
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("there is more after its JSON")
	}
	if f.Version != fileVersion {
		return nil, fmt.Errorf("its version is %d, want %d", f.Version, fileVersion)
	}
	if len(f.Tokens) > guard.MaxApplications {
		return nil, fmt.Errorf("it has %d tokens, want %d at most", len(f.Tokens), guard.MaxApplications)
	}
	names := map[string]bool{}
	for _, e := range f.Tokens {
		sum, err := hex.DecodeString(e.Digest)
		switch {
		case !namePattern.MatchString(e.Name) || names[e.Name]:
			return nil, errors.New("a name in it is malformed or there twice")
		case err != nil || len(sum) != sha256.Size:
			return nil, fmt.Errorf("the digest of %s is malformed", e.Name)
		case e.Rate < 0 || e.Rate > MaxRate:
			return nil, fmt.Errorf("the rate of %s is %d, want 0 to %d", e.Name, e.Rate, MaxRate)
		}
		names[e.Name] = true
	}
	return f.Tokens, nil
}

// Add makes a token and stores its digest. A lifetime of 0 means that it does not expire; a rate of 0 means
// front_door.rate_per_minute. Only the caller ever has the token itself. An expired token of the same name is replaced.
func Add(ctx context.Context, path, name string, lifetime time.Duration, rate int) (messages.Secret, Entry, error) {
	switch {
	case !namePattern.MatchString(name):
		return messages.Secret{}, Entry{}, ErrName
	case lifetime != 0 && (lifetime < MinLifetime || lifetime > MaxLifetime):
		return messages.Secret{}, Entry{}, ErrLifetime
	case rate < 0 || rate > MaxRate:
		return messages.Secret{}, Entry{}, ErrRate
	}
	var random [tokenBytes]byte
	_, _ = rand.Read(random[:]) // never fails
	token := base64.RawURLEncoding.EncodeToString(random[:])
	sum := sha256.Sum256([]byte(token))
	now := time.Now().UTC()
	made := Entry{Name: name, Digest: hex.EncodeToString(sum[:]), Created: now, Rate: rate}
	if lifetime != 0 {
		expires := now.Add(lifetime)
		made.Expires = &expires
	}
	err := change(ctx, path, func(all []Entry) ([]Entry, error) {
		var kept []Entry
		for _, e := range all {
			switch {
			case e.Name != name:
				kept = append(kept, e)
			case !e.Expired(now):
				return nil, ErrExists
			}
		}
		if len(kept) >= guard.MaxApplications {
			return nil, ErrTooMany
		}
		return append(kept, made), nil
	})
	if err != nil {
		return messages.Secret{}, Entry{}, err
	}
	return messages.NewSecret(token), made, nil
}

// Revoke removes a token.
func Revoke(ctx context.Context, path, name string) error {
	return change(ctx, path, func(all []Entry) ([]Entry, error) {
		for i, e := range all {
			if e.Name == name {
				return append(all[:i:i], all[i+1:]...), nil
			}
		}
		return nil, ErrNotFound
	})
}

// change replaces the list under a lock, so that two commands do not lose each other's change.
func change(ctx context.Context, path string, edit func([]Entry) ([]Entry, error)) error {
	if err := privatefs.EnsureDir(filepath.Dir(path)); err != nil {
		return err
	}
	lock := flock.New(path+".lock", flock.SetPermissions(0o600))
	ctx, cancel := context.WithTimeout(ctx, lockWithin)
	defer cancel()
	if _, err := lock.TryLockContext(ctx, lockEvery); err != nil {
		return fmt.Errorf("waiting for another command that changes the application tokens: %w", err)
	}
	defer func() { _ = lock.Unlock() }()
	before, err := Load(path)
	if err != nil {
		return err
	}
	after, err := edit(before)
	if err != nil {
		return err
	}
	if after == nil {
		after = []Entry{}
	}
	data, err := json.MarshalIndent(file{fileVersion, after}, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the application tokens: %w", err)
	}
	return privatefs.WriteFile(path, append(data, '\n'))
}
