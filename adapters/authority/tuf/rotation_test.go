package tuf

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"companion/adapters/authority/tuf/tuftest"
	"companion/messages"
)

// M1: a client recovers from a fast-forward attack on any role when the root has new keys for it (TUF specification,
// section 5.3.11). Afterwards the old versions are a rollback again.
func TestFastForwardRecovery(t *testing.T) {
	const far = 1_000_000
	for name, c := range map[string]struct {
		attack func(f *fixture)
		undo   func(f *fixture, honest int64)
		rekey  []string
	}{
		"timestamp": {
			func(f *fixture) { f.Timestamp.Signed.Version = far },
			func(f *fixture, honest int64) { f.Timestamp.Signed.Version = honest },
			[]string{metadata.TIMESTAMP},
		},
		"snapshot": {
			func(f *fixture) { f.Snapshot.Signed.Version = far },
			func(f *fixture, honest int64) { f.Snapshot.Signed.Version = honest },
			[]string{metadata.TIMESTAMP, metadata.SNAPSHOT},
		},
		"targets": {
			func(f *fixture) { f.Targets.Signed.Version = far },
			func(f *fixture, honest int64) { f.Targets.Signed.Version = honest },
			[]string{metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS},
		},
		"targets, with the keys of the snapshot": {
			func(f *fixture) { f.Targets.Signed.Version = far },
			func(f *fixture, honest int64) { f.Targets.Signed.Version = honest },
			[]string{metadata.SNAPSHOT},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.Add(tuftest.Model("small"))
			f.Publish()
			f.refresh(t, messages.ReasonOK)
			honest := f.Timestamp.Signed.Version
			c.attack(f)
			f.Publish()
			f.refresh(t, messages.ReasonOK)
			// Without new keys the honest versions are a rollback.
			c.undo(f, honest+1)
			f.Publish()
			f.refresh(t, messages.ReasonManifestRollback)
			for _, role := range c.rekey {
				f.Rekey(role)
			}
			f.Publish()
			saved := f.Saved()
			f.refresh(t, messages.ReasonOK)
			f.load(t, messages.ReasonOK)
			f.Publish()
			f.refresh(t, messages.ReasonOK)
			f.Restore(saved)
			f.refresh(t, messages.ReasonManifestRollback)
		})
	}
}

// M1: the same if one of two keys was replaced, so that the old signature still verifies: only the new key set shows that
// the old versions do not count.
func TestFastForwardRecoveryWithTwoKeys(t *testing.T) {
	f := newFixture(t)
	f.AddKey(metadata.TIMESTAMP)
	f.Publish()
	f.refresh(t, messages.ReasonOK)
	honest := f.Timestamp.Signed.Version
	f.Timestamp.Signed.Version = 1_000_000
	f.Publish()
	f.refresh(t, messages.ReasonOK)
	f.Timestamp.Signed.Version = honest
	f.Rekey(metadata.TIMESTAMP) // replaces the first key; the second one, which signed, stays
	f.Publish()
	f.refresh(t, messages.ReasonOK)
	f.load(t, messages.ReasonOK)
}

// M1: a verified manifest stays usable offline after a rotation of the root if the other files could not be fetched, for
// every rotated role and every missing file, also after two rotations.
func TestRotationThenOutage(t *testing.T) {
	for _, role := range []string{metadata.ROOT, metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS} {
		for _, missing := range []string{"timestamp.json", "snapshot.json", "targets.json"} {
			for _, rotations := range []int{1, 2} {
				f := newFixture(t)
				f.Add(tuftest.Model("small"))
				f.Publish()
				good := f.refresh(t, messages.ReasonOK)
				for range rotations {
					f.Rekey(role)
					f.Publish()
					f.SetFault(func(w http.ResponseWriter, name string) bool {
						if strings.HasSuffix(name, missing) {
							w.WriteHeader(503)
							return true
						}
						return false
					})
					f.refresh(t, messages.ReasonManifestUnreachable)
				}
				if got := f.load(t, messages.ReasonOK); !reflect.DeepEqual(got, good) {
					t.Fatalf("%s rotated %d times, no %s: got %+v, want %+v", role, rotations, missing, got, good)
				}
				f.SetFault(nil)
				f.refresh(t, messages.ReasonOK)
				f.load(t, messages.ReasonOK)
			}
		}
	}
}

// M15: a refresh removes the scratch folder and the unfinished files of a refresh that was killed.
func TestScratchFoldersAreRemoved(t *testing.T) {
	f := newFixture(t)
	c := f.client(t)
	for range 3 {
		dir, err := os.MkdirTemp(c.store.dir, scratchPrefix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "timestamp.json"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{verifiedFile, floorFile, lastGoodFile} {
		if err := os.WriteFile(filepath.Join(c.store.dir, "."+name+"7916587628899218138"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.refresh(t, messages.ReasonOK)
	if left, _ := filepath.Glob(filepath.Join(c.store.dir, ".*json*")); len(left) != 0 {
		t.Errorf("unfinished files: got %v, want none", left)
	}
	if left, _ := filepath.Glob(filepath.Join(c.store.dir, scratchPrefix+"*")); len(left) != 0 {
		t.Fatalf("scratch folders: got %v, want none", left)
	}
}

// M1: a web page instead of metadata, such as the sign-in page of a network, makes the manifest unreachable, not
// untrusted.
func TestWebPageInsteadOfMetadata(t *testing.T) {
	for _, page := range []string{"<html>", "<!DOCTYPE html>\n<html>", "\r\n  <HTML>", "\xef\xbb\xbf<?xml version=\"1.0\"?><html/>"} {
		for _, name := range []string{"2.root.json", "timestamp.json"} {
			f := newFixture(t)
			f.refresh(t, messages.ReasonOK)
			f.Set(name, []byte(page))
			f.refresh(t, messages.ReasonManifestUnreachable)
			f.Set(name, nil)
			f.load(t, messages.ReasonOK)
		}
	}
}

// M1: the hub's Retry-After is reported with the failure.
func TestRetryAfter(t *testing.T) {
	f := newFixture(t)
	f.SetFault(func(w http.ResponseWriter, _ string) bool {
		w.Header().Set("Retry-After", "90")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	_, err := f.client(t).Refresh(t.Context(), messages.Secret{})
	var e *Error
	if !errors.As(err, &e) || e.Reason != messages.ReasonManifestUnreachable || e.RetryAfter != 90*time.Second {
		t.Fatalf("got %#v, want manifest_unreachable and 90 s", err)
	}
}

// M1: a clock that is set back does not make an expired manifest good again.
func TestClockSetBack(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := Catalogue{Expires: now.Add(time.Hour), CheckedAt: now}
	if reason, _ := c.Standing(now.Add(-1000*time.Hour), 0); reason != messages.ReasonOK {
		t.Errorf("before the check: got %s, want ok, since the manifest was good then", reason)
	}
	c.CheckedAt = c.Expires.Add(time.Second)
	if reason, _ := c.Standing(now, 0); reason != messages.ReasonManifestExpired {
		t.Errorf("with a later check: got %s, want manifest_expired", reason)
	}
}

// M13: the pair is recorded with its signed entry, survives a newer manifest, a rotation of every key and the
// loss of the kept manifest, and is verified when it is read.
func TestLastGood(t *testing.T) {
	f := newFixture(t)
	f.AddDigest(tuftest.Model("small"), 1)
	f.AddDigest(tuftest.Runtime("llama", "linux/amd64"), 2)
	f.Publish()
	c := f.client(t)
	if _, err := c.Refresh(t.Context(), messages.Secret{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.LastGood(); err == nil {
		t.Fatal("before any record: got a pair, want an error")
	}
	if err := c.Remember([32]byte{9}, [32]byte{2}); err == nil {
		t.Fatal("model that no manifest names: got no error, want one")
	}
	// A newer manifest arrives before the pair becomes ready.
	f.AddDigest(tuftest.Model("small"), 3)
	f.Publish()
	if _, err := c.Refresh(t.Context(), messages.Secret{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Remember([32]byte{1}, [32]byte{2}); err != nil {
		t.Fatal(err)
	}
	want := func(when string) {
		t.Helper()
		got, err := f.client(t).LastGood()
		if err != nil || got.Model.SHA256 != [32]byte{1} || got.Runtime.SHA256 != [32]byte{2} || got.Runtime.Executable == "" || got.Expires.IsZero() {
			t.Fatalf("%s: got %+v, %v; want model 1 with runtime 2", when, got, err)
		}
	}
	want("recorded")
	for _, role := range []string{metadata.ROOT, metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS} {
		f.Rekey(role)
	}
	f.Publish()
	f.refresh(t, messages.ReasonOK)
	want("after every key was rotated")
	if err := os.Remove(f.kept(t, verifiedFile)); err != nil {
		t.Fatal(err)
	}
	want("without a kept manifest")
	// The unpinned binary.
	c = f.client(t)
	if _, err := c.Refresh(t.Context(), messages.Secret{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Remember([32]byte{3}, [32]byte{}); err != nil {
		t.Fatal(err)
	}
	if got, err := f.client(t).LastGood(); err != nil || got.Model.SHA256 != [32]byte{3} || got.Runtime.Kind != "" {
		t.Fatalf("got %+v, %v, want model 3 without a runtime", got, err)
	}
}

// M13, T6: a record that was changed on disk is refused.
func TestForgedLastGood(t *testing.T) {
	f := newFixture(t)
	f.AddDigest(tuftest.Model("small"), 1)
	f.Publish()
	c := f.client(t)
	if _, err := c.Refresh(t.Context(), messages.Secret{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Remember([32]byte{1}, [32]byte{}); err != nil {
		t.Fatal(err)
	}
	r, err := read[recordedPair](c.store, lastGoodFile)
	if err != nil {
		t.Fatal(err)
	}
	forged := r
	forged.Targets = []byte(strings.Replace(string(r.Targets), `"length":1000`, `"length":1001`, 1))
	other := r
	other.Model = strings.Repeat("22", 32)
	for name, record := range map[string]recordedPair{"altered targets": forged, "a model that is not named": other} {
		if got, err := c.verifyPair(record); err == nil {
			t.Errorf("%s: got %+v, want a refusal", name, got)
		}
	}
	path := f.kept(t, lastGoodFile)
	if err := os.WriteFile(path, []byte(`{"roots":[],"tar`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := f.client(t).LastGood(); err == nil {
		t.Fatalf("truncated record: got %+v, want an error", got)
	}
}
