package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"companion/e2e/harness"
	"companion/messages"
)

// pulled signs in, pulls and returns the exit code, and the reasons that the status then shows.
func pulled(t *testing.T, c *harness.Companion) (int, []messages.Reason) {
	t.Helper()
	c.SignIn()
	return pull(t, c)
}

func pull(t *testing.T, c *harness.Companion) (int, []messages.Reason) {
	t.Helper()
	r := c.Run("pull")
	if strings.Contains(r.Stdout+r.Stderr, "https://") || strings.Contains(r.Stdout+r.Stderr, c.Home) {
		t.Errorf("pull shows a URL or a path: %s%s", r.Stdout, r.Stderr)
	}
	if r.Code != 0 && r.Stderr == "" {
		t.Error("pull failed without a word")
	}
	status, _ := c.Status()
	return r.Code, []messages.Reason{status.Reason, status.Manifest.Reason}
}

// stored lists what lies under the final names of models, archives and runtimes.
func stored(t *testing.T, c *harness.Companion) []string {
	t.Helper()
	var found []string
	for _, dir := range []string{"models", "archives", "runtimes"} {
		err := filepath.WalkDir(filepath.Join(c.Data(), dir), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				found = append(found, strings.TrimPrefix(path, c.Data()))
			}
			return err
		})
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	return found
}

// M1, M2, M4, M6, T6: what a hostile or broken mirror, or a manifest that cannot be trusted, offers
// is refused with exit 6, and nothing lies under a final name.
func TestHostileSupply(t *testing.T) {
	for fault, reason := range map[string]messages.Reason{
		"flipped-byte":                "digest_mismatch",
		"truncated":                   "size_mismatch",
		"extended":                    "size_mismatch",
		"wrong-digest":                "digest_mismatch",
		"wrong-length":                "size_mismatch",
		"redirect-elsewhere":          "source_not_allowed",
		"outside-origin":              "source_not_allowed",
		"same-host":                   "source_not_allowed",
		"plain-http":                  "scheme_not_allowed",
		"expired-manifest":            "manifest_expired",
		"wrong-signature":             "manifest_untrusted",
		"truncated-manifest":          "manifest_untrusted",
		"manifest-from-artifact-host": "manifest_untrusted",
	} {
		t.Run(fault, func(t *testing.T) {
			hub := harness.NewHub(t)
			hub.PublishSmall()
			hub.Fault(fault, true)
			c := hub.Companion("")
			// The hub's own host may be private as well: the check of addresses is not what refuses it.
			c.Edit(`"127.0.0.1"`, `"127.0.0.1", "localhost"`)
			c.Start()
			code, got := pulled(t, c)
			if code != 6 || !slices.Contains(got, reason) {
				t.Errorf("pull: exit %d, status says %q; want 6, %s", code, got, reason)
			}
			if files := stored(t, c); len(files) != 0 {
				t.Errorf("there are %v", files)
			}
			if status, _ := c.Status(); status.CompanionAvailable || status.Facts.Verified {
				t.Errorf("the status is %+v", status.Facts)
			}
			if asked := hub.ArtifactRequests(harness.HubHost); len(asked) != 0 {
				t.Errorf("the hub's own host was asked:\n%s", asked)
			}
			// The same companion takes the same artifacts when the hub behaves: the fault was what
			// kept it.
			hub.Fault(fault, false)
			if code, got := pull(t, c); code != 0 {
				t.Errorf("without the fault: exit %d, %s", code, got)
			}
			if files, asked := stored(t, c), hub.ArtifactRequests(harness.ArtifactHost); len(files) == 0 || len(asked) == 0 {
				t.Errorf("without the fault %v was stored, after %d requests", files, len(asked))
			}
		})
	}
}

// M1, T6: a manifest that is older than one seen before is refused, and what was verified stays.
func TestRolledBackManifest(t *testing.T) {
	hub := harness.NewHub(t)
	hub.PublishSmall()
	c := hub.Companion("")
	c.Start()
	if code, got := pulled(t, c); code != 0 {
		t.Fatalf("pull: exit %d, %s", code, got)
	}
	before := stored(t, c)
	hub.Fault("rolled-back-manifest", true)
	if code, got := pull(t, c); code != 6 || !slices.Contains(got, messages.ReasonManifestRollback) {
		t.Errorf("pull: exit %d, %s; want 6, manifest_rollback", code, got)
	}
	if after := stored(t, c); len(after) != len(before) {
		t.Errorf("stored %v, before %v", after, before)
	}
}

// M12: an archive that would write elsewhere is refused as a whole, although the manifest signs it.
func TestHostileArchive(t *testing.T) {
	program := harness.Entry{Name: "bin/llama-server", Body: "not a program", Mode: 0o755}
	for name, entry := range map[string]harness.Entry{
		"dot segments":  {Name: "../evil", Body: "x", Mode: 0o600},
		"absolute path": {Name: "/tmp/evil", Body: "x", Mode: 0o600},
		"outward link":  {Name: "lib", Link: "../../../../../../tmp"},
		"absolute link": {Name: "lib", Link: "/etc"},
	} {
		t.Run(name, func(t *testing.T) {
			hub := harness.NewHub(t)
			hub.PublishSmall()
			hub.Publish("runtime", harness.RuntimeName, harness.Archive(t, program, entry), "--unchecked",
				"--executable", program.Name, "--version", "2", "--default")
			c := hub.Companion("")
			c.Start()
			if code, got := pulled(t, c); code != 6 {
				t.Errorf("pull: exit %d, %s; want 6", code, got)
			}
			for _, file := range stored(t, c) {
				if strings.Contains(file, "runtimes") {
					t.Errorf("there is %s", file)
				}
			}
			err := filepath.WalkDir(c.Home, func(path string, _ fs.DirEntry, err error) error {
				if strings.HasSuffix(path, "evil") {
					t.Errorf("there is %s", path)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// M1, M3: nothing is fetched while nobody is signed in.
func TestPullNeedsSignIn(t *testing.T) {
	hub := harness.NewHub(t)
	hub.PublishSmall()
	c := hub.Companion("")
	c.Start()
	if code, got := pull(t, c); code != 4 {
		t.Errorf("pull: exit %d, %s; want 4", code, got)
	}
	if files := stored(t, c); len(files) != 0 {
		t.Errorf("there are %v", files)
	}
}

// M8: a download that is cut is taken up again, and a hub that is down for a moment costs time only.
func TestCutDownload(t *testing.T) {
	hub := harness.NewHub(t)
	want := hub.PublishSmall()
	hub.Fault("cut", true)
	c := hub.Companion("")
	c.Start()
	c.SignIn()
	time.Sleep(time.Second) // some attempts meet the fault
	hub.Fault("cut", false)
	c.Await("verified", time.Minute, func(s messages.Status) bool { return s.Facts.Verified })
	found := false
	for _, file := range stored(t, c) {
		data, err := os.ReadFile(filepath.Join(c.Data(), file))
		if err != nil {
			t.Fatal(err)
		}
		found = found || string(data) == string(want)
	}
	if !found {
		t.Error("the model is not there, byte for byte")
	}
}
