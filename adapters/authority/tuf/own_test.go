package tuf

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"companion/adapters/authority/tuf/tuftest"
	"companion/messages"
)

func newOwn(t *testing.T) *Own {
	t.Helper()
	return NewOwn(OwnConfig{Dir: filepath.Join(t.TempDir(), "own"), Platform: "linux/amd64"})
}

// ownModel is a model without a URL whose digest begins with first.
func ownModel(name string, first byte) OwnTarget {
	return OwnTarget{Custom: messages.TargetCustom{Kind: messages.KindModel, Name: name, Version: "1"}, SHA256: [32]byte{first}, Size: 1000}
}

func ownRuntime(name string, first byte) OwnTarget {
	return OwnTarget{
		Custom: messages.TargetCustom{
			Kind: messages.KindRuntime, Name: name, Version: "1", Platform: "linux/amd64", Format: "tar.gz", Executable: "bin/llama-server",
			Files: []messages.TargetFile{{Path: "bin/llama-server", SHA256: strings.Repeat("ab", 32), Size: 4, Executable: true}},
		},
		SHA256: [32]byte{first}, Size: 1000,
	}
}

func mustAdd(t *testing.T, o *Own, targets ...OwnTarget) {
	t.Helper()
	for _, target := range targets {
		if err := o.Add(t.Context(), target); err != nil {
			t.Fatalf("adding %s: %v", target.Custom.Name, err)
		}
	}
}

// M16: what the user adds is in the catalogue, without a URL, a session or a hub, and is gone after Remove.
func TestOwn(t *testing.T) {
	o := newOwn(t)
	if cat, err := o.Load(); err != nil || len(cat.entries) != 0 {
		t.Fatalf("before the first Add: got %+v, %v, want an empty catalogue", cat, err)
	}
	mustAdd(t, o, ownModel("m", 1), ownRuntime("r", 2))
	cat, err := o.Load()
	if err != nil {
		t.Fatal(err)
	}
	model, reason := cat.Model("")
	if reason != messages.ReasonOK || !model.Own || model.Name != "m" || model.SHA256 != [32]byte{1} || model.Size != 1000 {
		t.Errorf("got the model %+v, %s, want m, marked as the user's own", model, reason)
	}
	if runtime, reason := cat.Runtime("r"); reason != messages.ReasonOK || !runtime.Own || len(runtime.Files) != 1 {
		t.Errorf("got the runtime %+v, %s, want r", runtime, reason)
	}
	if err := o.Remove(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if cat, err := o.Load(); err != nil || cat.Names(messages.KindModel, "m") || !cat.Names(messages.KindRuntime, "r") {
		t.Errorf("after Remove: got %+v, %v, want the runtime only", cat, err)
	}
	var refused *OwnError
	if err := o.Remove(t.Context(), "m"); !errors.As(err, &refused) || refused.Hint == "" {
		t.Errorf("removing it again: got %v, want an error with a hint", err)
	}
}

// M16: a name has one artifact, of either kind. A new default takes the mark from the old one.
func TestOwnNamesAndDefault(t *testing.T) {
	o := newOwn(t)
	mustAdd(t, o, ownModel("m", 1))
	var refused *OwnError
	for _, other := range []OwnTarget{ownModel("m", 9), ownRuntime("m", 2)} {
		if err := o.Add(t.Context(), other); !errors.As(err, &refused) {
			t.Errorf("a second %s m: got %v, want it refused", other.Custom.Kind, err)
		}
	}
	first, second := ownModel("m", 1), ownModel("n", 3)
	first.Custom.Default, second.Custom.Default = true, true
	mustAdd(t, o, first)
	runtime := ownRuntime("r", 2)
	runtime.Custom.Default = true
	mustAdd(t, o, runtime, second)
	cat, err := o.Load()
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := cat.Default(messages.KindModel); !ok || got.Name != "n" {
		t.Errorf("got the default %q, %v, want n", got.Name, ok)
	}
	if got, ok := cat.Default(messages.KindRuntime); !ok || got.Name != "r" {
		t.Errorf("got the default %q, %v, want r", got.Name, ok)
	}
}

// M16, M2: what the reader of a catalogue refuses is not signed, and the error says why.
func TestOwnAddChecks(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*OwnTarget)
		says   string
	}{
		"no size":        {func(t *OwnTarget) { t.Size = 0 }, "a size of 0 bytes"},
		"no digest":      {func(t *OwnTarget) { t.SHA256 = [32]byte{} }, "no digest"},
		"malformed name": {func(t *OwnTarget) { t.Custom.Name = "../r" }, "its name is malformed"},
		"no version":     {func(t *OwnTarget) { t.Custom.Version = "" }, "malformed"},
		"another system": {func(t *OwnTarget) { t.Custom.Platform = "plan9/mips" }, "it is for plan9/mips"},
		"unknown format": {func(t *OwnTarget) { t.Custom.Format = "rar" }, "rar does not equal any of: [tar.gz zip]"},
		"no program":     {func(t *OwnTarget) { t.Custom.Executable = "bin/none" }, "not a program of the list"},
		"a clear URL": {func(t *OwnTarget) {
			t.Custom.URLs, t.Custom.Origins = []string{"http://models.example/r"}, []string{"http://models.example/"}
		}, "https"},
		"outside its origins": {func(t *OwnTarget) {
			t.Custom.URLs, t.Custom.Origins = []string{"https://models.example/r"}, []string{"https://other.example/"}
		}, "source_not_allowed"},
	} {
		o, target := newOwn(t), ownRuntime("r", 2)
		c.change(&target)
		var refused *OwnError
		if err := o.Add(t.Context(), target); !errors.As(err, &refused) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want an error that says %q", name, err, c.says)
		}
		if _, err := os.Stat(o.config.Dir); err == nil {
			t.Errorf("%s: got a catalogue, want none", name)
		}
	}
}

// M16, T17: a catalogue that the user's key did not sign, or whose files others can read, gives nothing, and says so.
func TestOwnUntrusted(t *testing.T) {
	flip := func(t *testing.T, o *Own, name string) {
		data, err := os.ReadFile(o.path(name))
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		if err := os.WriteFile(o.path(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, spoil := range map[string]func(t *testing.T, o *Own){
		"changed catalogue": func(t *testing.T, o *Own) { flip(t, o, ownFile) },
		"changed root":      func(t *testing.T, o *Own) { flip(t, o, ownRootFile) },
		"no root":           func(_ *testing.T, o *Own) { _ = os.Remove(o.path(ownRootFile)) },
		"cut off":           func(_ *testing.T, o *Own) { _ = os.Truncate(o.path(ownFile), 100) },
		"empty":             func(_ *testing.T, o *Own) { _ = os.Truncate(o.path(ownFile), 0) },
		"readable by all":   func(_ *testing.T, o *Own) { _ = os.Chmod(o.path(ownFile), 0o644) },
		"another key": func(t *testing.T, o *Own) {
			other := newOwn(t)
			mustAdd(t, other, ownModel("evil", 9))
			data, err := os.ReadFile(other.path(ownFile))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(o.path(ownFile), data, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"unsigned": func(t *testing.T, o *Own) {
			_, key, _ := ed25519.GenerateKey(nil)
			set, err := o.load()
			if err != nil {
				t.Fatal(err)
			}
			targets := set.Targets["targets"]
			targets.ClearSignatures()
			m, err := signOwn(key, targets)
			if err != nil {
				t.Fatal(err)
			}
			data, _ := json.Marshal(m)
			if err := os.WriteFile(o.path(ownFile), data, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOwn(t)
			mustAdd(t, o, ownModel("m", 1))
			spoil(t, o)
			cat, err := o.Load()
			if ReasonOf(err) != messages.ReasonManifestUntrusted || len(cat.entries) != 0 {
				t.Errorf("got %+v, %v, want nothing and manifest_untrusted", cat, err)
			}
			var refused *OwnError
			if err := o.Add(t.Context(), ownModel("n", 2)); !errors.As(err, &refused) || !strings.Contains(refused.Hint, o.config.Dir) {
				t.Errorf("adding to it: got %v, want an error whose hint names the folder", err)
			}
		})
	}
}

// M16: without its key a catalogue still serves what is in it, but nothing can be added. A key of another catalogue or with
// access for others is refused.
func TestOwnKey(t *testing.T) {
	for name, spoil := range map[string]func(o *Own){
		"missing": func(o *Own) { _ = os.Remove(o.path(ownKeyFile)) },
		"damaged": func(o *Own) { _ = os.Truncate(o.path(ownKeyFile), 30) },
		"another": func(o *Own) {
			other := newOwn(t)
			mustAdd(t, other, ownModel("m", 1))
			data, _ := os.ReadFile(other.path(ownKeyFile))
			_ = os.WriteFile(o.path(ownKeyFile), data, 0o600)
		},
		"readable by all": func(o *Own) { _ = os.Chmod(o.path(ownKeyFile), 0o644) },
	} {
		o := newOwn(t)
		mustAdd(t, o, ownModel("m", 1))
		if info, err := os.Stat(o.path(ownKeyFile)); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("got the key %v, %v, want mode 0600", info, err)
		}
		spoil(o)
		if err := o.Add(t.Context(), ownModel("n", 2)); err == nil {
			t.Errorf("%s: got no error, want one", name)
		}
		if cat, err := o.Load(); err != nil || !cat.Names(messages.KindModel, "m") || cat.Names(messages.KindModel, "n") {
			t.Errorf("%s: got %+v, %v, want the catalogue as it was", name, cat, err)
		}
	}
}

// M16: commands that add at the same time lose nothing.
func TestOwnAddsAtOnce(t *testing.T) {
	o := newOwn(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			if err := o.Add(t.Context(), ownModel(fmt.Sprintf("m%d", i), byte(i+1))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if cat, err := o.Load(); err != nil || len(cat.entries) != 8 {
		t.Errorf("got %d entries, %v, want 8", len(cat.entries), err)
	}
}

// noHub is a Hub without a manifest.
type noHub struct{ Hub }

func (noHub) Load() (Catalogue, error) { return Catalogue{}, os.ErrNotExist }
func (noHub) LastGood() (Pair, error)  { return Pair{}, os.ErrNotExist }
func (noHub) Verify([]byte, [32]byte) (messages.Artifact, time.Time, error) {
	return messages.Artifact{}, time.Time{}, os.ErrNotExist
}

// M13, M16: the pair of the user's own artifacts that became ready is the last known good one after a restart, until one of
// them is removed.
func TestOwnLastGood(t *testing.T) {
	o := newOwn(t)
	mustAdd(t, o, ownModel("m", 1), ownModel("n", 3), ownRuntime("r", 2))
	s := Sources{noHub{}, o}
	if err := s.Remember([32]byte{1}, [32]byte{2}); err != nil {
		t.Fatal(err)
	}
	good, err := Sources{noHub{}, NewOwn(o.config)}.LastGood()
	if err != nil || good.Model.Name != "m" || good.Runtime.Name != "r" || !good.Expires.IsZero() {
		t.Errorf("got %+v, %v, want m and r, which never expire", good, err)
	}
	if err := o.Remove(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if good, err := s.LastGood(); err == nil {
		t.Errorf("after Remove: got %+v, want none", good)
	}
}

// M13, M16: the pair of a model of the user and a runtime of the hub stays the last known good one when the hub's manifest no
// longer names the runtime, after a rotation of every key, and without a stored manifest. The user's part must still be there,
// and the hub's part must be signed.
func TestMixedLastGood(t *testing.T) {
	f := newFixture(t)
	f.AddDigest(tuftest.Runtime("llama", "linux/amd64"), 2)
	f.Publish()
	o := newOwn(t)
	mustAdd(t, o, ownModel("mine", 1))
	refreshed := func() Sources {
		t.Helper()
		c := f.client(t)
		if _, err := c.Refresh(t.Context(), messages.Secret{}); err != nil {
			t.Fatal(err)
		}
		return Sources{c, o}
	}
	if err := refreshed().Remember([32]byte{1}, [32]byte{2}); err != nil {
		t.Fatal(err)
	}
	want := func(when string) {
		t.Helper()
		got, err := Sources{f.client(t), NewOwn(o.config)}.LastGood()
		if err != nil || got.Model.Name != "mine" || got.Runtime.SHA256 != [32]byte{2} || !got.Model.Own || got.Runtime.Own || got.Expires.IsZero() {
			t.Fatalf("%s: got %+v, %v; want mine with the hub's runtime 2, and its expiry", when, got, err)
		}
	}
	want("recorded")
	f.AddDigest(tuftest.Runtime("llama", "linux/amd64"), 3)
	f.Publish()
	moved := refreshed()
	want("the manifest names another runtime")
	if err := moved.Remember([32]byte{1}, [32]byte{2}); err != nil {
		t.Errorf("the same pair is ready again: got %v, want no error", err)
	}
	want("ready again")
	for _, role := range []string{metadata.ROOT, metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS} {
		f.Rekey(role)
	}
	f.Publish()
	f.refresh(t, messages.ReasonOK)
	if err := os.Remove(f.kept(t, verifiedFile)); err != nil {
		t.Fatal(err)
	}
	want("after every key was rotated, without a kept manifest")

	path := o.path(ownGoodFile)
	recorded, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	forge := func(change func(*ownGood)) []byte {
		var g ownGood
		if err := json.Unmarshal(recorded, &g); err != nil {
			t.Fatal(err)
		}
		change(&g)
		data, _ := json.Marshal(g)
		return data
	}
	for name, data := range map[string][]byte{
		"without evidence":   forge(func(g *ownGood) { g.Hub = nil }),
		"altered metadata":   forge(func(g *ownGood) { g.Hub = []byte(strings.Replace(string(g.Hub), "eyJ", "eyK", 1)) }),
		"another digest":     forge(func(g *ownGood) { g.Runtime = strings.Repeat("09", 32) }),
		"a malformed digest": forge(func(g *ownGood) { g.Runtime = "../x" }),
		"cut off":            recorded[:len(recorded)/2],
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := (Sources{f.client(t), o}).LastGood(); err == nil {
			t.Errorf("%s: got %+v, want none", name, got)
		}
	}
	if err := os.WriteFile(path, recorded, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := o.Remove(t.Context(), "mine"); err != nil {
		t.Fatal(err)
	}
	if got, err := (Sources{f.client(t), o}).LastGood(); err == nil {
		t.Errorf("after Remove: got %+v, want none", got)
	}
}

// M13: where the record of a pair with a part of the user cannot be used, the pair of the hub that became ready before it is
// the last known good one.
func TestGoodBeforeOwn(t *testing.T) {
	f := newFixture(t)
	f.AddDigest(tuftest.Model("small"), 4)
	f.AddDigest(tuftest.Runtime("llama", "linux/amd64"), 2)
	f.Publish()
	c := f.client(t)
	if _, err := c.Refresh(t.Context(), messages.Secret{}); err != nil {
		t.Fatal(err)
	}
	o := newOwn(t)
	mustAdd(t, o, ownModel("mine", 1))
	s := Sources{c, o}
	for _, model := range [][32]byte{{4}, {1}} {
		if err := s.Remember(model, [32]byte{2}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.LastGood(); err != nil || got.Model.Name != "mine" {
		t.Fatalf("got %+v, %v, want mine", got, err)
	}
	if err := o.Remove(t.Context(), "mine"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.LastGood(); err != nil || got.Model.Name != "small" || got.Runtime.SHA256 != [32]byte{2} {
		t.Errorf("after Remove: got %+v, %v, want the hub's small", got, err)
	}
}
