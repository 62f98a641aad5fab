package tuf

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"companion/adapters/authority/tuf/tuftest"
	"companion/messages"
)

// serves is the name under which the current version of a role is served.
func (f *fixture) serves(role string) string {
	switch role {
	case metadata.ROOT:
		return fmt.Sprintf("%d.root.json", f.Root.Signed.Version)
	case metadata.SNAPSHOT:
		return fmt.Sprintf("%d.snapshot.json", f.Snapshot.Signed.Version)
	case metadata.TARGETS:
		return fmt.Sprintf("%d.targets.json", f.Targets.Signed.Version)
	}
	return "timestamp.json"
}

// nextRoot serves the current root as the next version.
func (f *fixture) nextRoot() {
	f.Root.Signed.Version++
	f.Sign(metadata.ROOT, f.serves(metadata.ROOT))
}

// attacks are those of the TUF specification (section 1.5.2), by name; each is made on one role of a repository whose current
// version the client has. want is the reason of the refusal.
var attacks = map[string]map[string]struct {
	make func(f *fixture)
	want messages.Reason
}{
	"rollback": {
		metadata.ROOT: {func(f *fixture) { f.Set("2.root.json", f.Saved()["1.root.json"]) }, messages.ReasonManifestRollback},
		metadata.TIMESTAMP: {func(f *fixture) {
			f.Timestamp.Signed.Version--
			f.SignTimestamp()
		}, messages.ReasonManifestRollback},
		metadata.SNAPSHOT: {func(f *fixture) {
			f.Timestamp.Signed.Version++
			f.Timestamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(f.Snapshot.Signed.Version - 1)
			f.SignTimestamp()
		}, messages.ReasonManifestRollback},
		metadata.TARGETS: {func(f *fixture) {
			f.Targets.Signed.Version -= 2 // Publish adds one
			f.Publish()
		}, messages.ReasonManifestRollback},
	},
	"mix and match": {
		metadata.ROOT:      {func(f *fixture) { f.Set("2.root.json", f.Saved()[f.serves(metadata.SNAPSHOT)]) }, messages.ReasonManifestUntrusted},
		metadata.TIMESTAMP: {func(f *fixture) { f.Set("timestamp.json", f.Saved()[f.serves(metadata.SNAPSHOT)]) }, messages.ReasonManifestUntrusted},
		metadata.SNAPSHOT: {func(f *fixture) {
			old := f.Saved()[f.serves(metadata.SNAPSHOT)]
			f.Publish()
			f.Set(f.serves(metadata.SNAPSHOT), old)
		}, messages.ReasonManifestRollback},
		metadata.TARGETS: {func(f *fixture) {
			old := f.Saved()[f.serves(metadata.TARGETS)]
			f.Publish()
			f.Set(f.serves(metadata.TARGETS), old)
		}, messages.ReasonManifestRollback},
	},
	"freeze": {
		metadata.ROOT: {func(f *fixture) {
			f.Root.Signed.Expires = time.Now().Add(-time.Hour)
			f.nextRoot()
		}, messages.ReasonManifestExpired},
		metadata.TIMESTAMP: {func(f *fixture) { f.Timestamp.Signed.Expires = time.Now().Add(-time.Hour); f.Publish() }, messages.ReasonManifestExpired},
		metadata.SNAPSHOT:  {func(f *fixture) { f.Snapshot.Signed.Expires = time.Now().Add(-time.Hour); f.Publish() }, messages.ReasonManifestExpired},
		metadata.TARGETS:   {func(f *fixture) { f.Targets.Signed.Expires = time.Now().Add(-time.Hour); f.Publish() }, messages.ReasonManifestExpired},
	},
	"wrong threshold": allRoles(func(f *fixture, role string) {
		f.Root.Signed.Roles[role].Threshold = 2
		f.nextRoot()
		f.Publish()
	}, messages.ReasonManifestUntrusted),
	"revoked key": allRoles(func(f *fixture, role string) {
		f.Revoke(role)
		if role == metadata.ROOT {
			f.nextRoot()
		}
		f.Publish()
	}, messages.ReasonManifestUntrusted),
	"unknown key": allRoles(func(f *fixture, role string) {
		f.Forge(role)
		if role == metadata.ROOT {
			f.nextRoot()
		}
		f.Publish()
	}, messages.ReasonManifestUntrusted),
	"wrong version": {
		metadata.ROOT: {func(f *fixture) {
			f.Root.Signed.Version += 2
			f.Sign(metadata.ROOT, "2.root.json")
		}, messages.ReasonManifestRollback},
		metadata.TIMESTAMP: {func(f *fixture) {
			f.Timestamp.Signed.Version = 0
			f.SignTimestamp()
		}, messages.ReasonManifestRollback},
		metadata.SNAPSHOT: {func(f *fixture) {
			f.Publish()
			name := f.serves(metadata.SNAPSHOT)
			f.Snapshot.Signed.Version++
			f.Sign(metadata.SNAPSHOT, name)
		}, messages.ReasonManifestRollback},
		metadata.TARGETS: {func(f *fixture) {
			f.Publish()
			name := f.serves(metadata.TARGETS)
			f.Targets.Signed.Version++
			f.Sign(metadata.TARGETS, name)
		}, messages.ReasonManifestRollback},
	},
}

type attack = struct {
	make func(f *fixture)
	want messages.Reason
}

func allRoles(of func(f *fixture, role string), want messages.Reason) map[string]attack {
	all := map[string]attack{}
	for _, role := range []string{metadata.ROOT, metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS} {
		all[role] = attack{func(f *fixture) { of(f, role) }, want}
	}
	return all
}

// attacked returns a repository of which the client has the current version.
func attacked(t *testing.T) (*fixture, Catalogue) {
	t.Helper()
	f := newFixture(t)
	f.Add(tuftest.Model("m"))
	f.Publish()
	f.refresh(t, messages.ReasonOK)
	f.Publish()
	return f, f.refresh(t, messages.ReasonOK)
}

// M1, T6: every attack of the TUF specification on every role is refused, and the verified manifest stays. Fast-forward attacks
// are in TestFastForwardRecovery.
func TestAttackMatrix(t *testing.T) {
	for name, roles := range attacks {
		if len(roles) != 4 {
			t.Errorf("%s: got %d roles, want 4", name, len(roles))
		}
		for role, a := range roles {
			t.Run(name+"/"+role, func(t *testing.T) {
				f, good := attacked(t)
				a.make(f)
				f.refresh(t, a.want)
				if kept := f.load(t, messages.ReasonOK); kept.Version != good.Version || len(kept.entries) != 1 {
					t.Errorf("got version %d with %d entries kept, want %d with 1", kept.Version, len(kept.entries), good.Version)
				}
			})
		}
	}
}

// M1, T6: endless data in the place of each role ends at the limit of a file, and the verified manifest stays.
func TestEndlessData(t *testing.T) {
	for _, role := range []string{metadata.ROOT, metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS} {
		t.Run(role, func(t *testing.T) {
			f, good := attacked(t)
			f.Publish()
			name := f.serves(role)
			if role == metadata.ROOT {
				name = "2.root.json"
			}
			var sent atomic.Int64
			f.SetFault(func(w http.ResponseWriter, asked string) bool {
				if asked != name {
					return false
				}
				for chunk := make([]byte, 64<<10); ; {
					n, err := w.Write(chunk)
					if sent.Add(int64(n)); err != nil {
						return true
					}
				}
			})
			if cat, err := f.client(t).Refresh(t.Context(), messages.Secret{}); err == nil {
				t.Errorf("got %+v, want it refused", cat)
			}
			f.SetFault(nil)
			// What the server had written before the connection closed may lie in the buffers of the kernel.
			if n := sent.Load(); n > 4*maxFile {
				t.Errorf("got %d bytes read, want about %d at most", n, maxFile)
			}
			if kept := f.load(t, messages.ReasonOK); kept.Version != good.Version {
				t.Errorf("got version %d kept, want %d", kept.Version, good.Version)
			}
		})
	}
}

// M1, T6: metadata whose digest or length is not what the file before it in the chain says is refused, and the verified manifest
// stays.
func TestWrongMetadataHash(t *testing.T) {
	wrong := func(version int64, change func(*metadata.MetaFiles)) *metadata.MetaFiles {
		m := metadata.MetaFile(version)
		change(m)
		return m
	}
	for what, change := range map[string]func(*metadata.MetaFiles){
		"digest": func(m *metadata.MetaFiles) { m.Hashes = metadata.Hashes{"sha256": make([]byte, 32)} },
		"length": func(m *metadata.MetaFiles) { m.Length = 10 },
	} {
		for role, of := range map[string]func(f *fixture){
			metadata.SNAPSHOT: func(f *fixture) {
				f.Timestamp.Signed.Meta["snapshot.json"] = wrong(f.Snapshot.Signed.Version, change)
			},
			metadata.TARGETS: func(f *fixture) {
				f.Snapshot.Signed.Meta["targets.json"] = wrong(f.Targets.Signed.Version, change)
				f.Sign(metadata.SNAPSHOT, f.serves(metadata.SNAPSHOT))
			},
		} {
			f, good := attacked(t)
			f.Publish()
			of(f)
			f.SignTimestamp()
			if cat, err := f.client(t).Refresh(t.Context(), messages.Secret{}); err == nil {
				t.Errorf("wrong %s of %s: got version %d, want it refused", what, role, cat.Version)
			}
			if kept := f.load(t, messages.ReasonOK); kept.Version != good.Version {
				t.Errorf("wrong %s of %s: got version %d kept, want %d", what, role, kept.Version, good.Version)
			}
		}
	}
}
