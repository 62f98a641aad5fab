package supply

import (
	"bytes"
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
	said := r.Stdout + r.Stderr
	if strings.Contains(said, string(messages.ReasonNoSpace)) { // which names the folder that is full
		folder := filepath.Join(c.Home, "data", "companion", "models")
		if !strings.Contains(said, folder+" has ") || !strings.Contains(said, " are needed") {
			t.Errorf("got %q, want the folder, its free space and what is needed", said)
		}
		said = strings.ReplaceAll(said, folder, "")
	}
	if strings.Contains(said, "https://") || strings.Contains(said, c.Home) {
		t.Errorf("pull shows a URL or a path, want neither: %s%s", r.Stdout, r.Stderr)
	}
	if r.Code != 0 && r.Stderr == "" {
		t.Error("pull failed without a message, want one")
	}
	status, _ := c.Status()
	return r.Code, []messages.Reason{status.Reason, status.Manifest.Reason}
}

// stored lists the final names of models, archives and runtimes.
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

// M1, M2, M4, M6, T6: artifacts of a hostile or broken mirror, or of a manifest that cannot be trusted, are
// refused with exit 6, and nothing has its final name.
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
			// The hub's own host may resolve to a private address too, so the check of addresses is not
			// what refuses it.
			c.Edit(`"127.0.0.1"`, `"127.0.0.1", "localhost"`)
			c.Start()
			code, got := pulled(t, c)
			if code != 6 || !slices.Contains(got, reason) {
				t.Errorf("pull: exit %d, status says %q; want 6, %s", code, got, reason)
			}
			if files := stored(t, c); len(files) != 0 {
				t.Errorf("got stored %v, want nothing", files)
			}
			if status, _ := c.Status(); status.CompanionAvailable || status.Facts.Verified {
				t.Errorf("got facts %+v, want nothing verified or available", status.Facts)
			}
			if asked := hub.ArtifactRequests(harness.HubHost); len(asked) != 0 {
				t.Errorf("the hub's own host got requests, want none:\n%s", asked)
			}
			// The same companion accepts the same artifacts from a hub without faults: the fault was the
			// cause.
			hub.Fault(fault, false)
			if code, got := pull(t, c); code != 0 {
				t.Errorf("without the fault: got exit %d, %s, want 0", code, got)
			}
			if files, asked := stored(t, c), hub.ArtifactRequests(harness.ArtifactHost); len(files) == 0 || len(asked) == 0 {
				t.Errorf("without the fault: got %v stored after %d requests, want both", files, len(asked))
			}
		})
	}
}

// M1, T6: a manifest that is older than one seen before is refused, and verified artifacts stay.
func TestRolledBackManifest(t *testing.T) {
	hub := harness.NewHub(t)
	hub.PublishSmall()
	c := hub.Companion("")
	c.Start()
	if code, got := pulled(t, c); code != 0 {
		t.Fatalf("pull: got exit %d, %s, want 0", code, got)
	}
	before := stored(t, c)
	hub.Fault("rolled-back-manifest", true)
	if code, got := pull(t, c); code != 6 || !slices.Contains(got, messages.ReasonManifestRollback) {
		t.Errorf("pull: exit %d, %s; want 6, manifest_rollback", code, got)
	}
	if after := stored(t, c); len(after) != len(before) {
		t.Errorf("got stored %v, want %v as before", after, before)
	}
}

// M12, T6: an archive that would write outside its folder, or that differs from the manifest's list, is
// refused as a whole. Its digest is right and the signed list is harmless, so the unpacker refuses it.
func TestHostileArchive(t *testing.T) {
	outside := harness.TempDir(t)
	program := harness.Entry{Name: "bin/llama-server", Body: "not a program", Mode: 0o755}
	link := harness.Entry{Name: "bin/tool", Link: "llama-server"}
	evil := func(name string) harness.Entry { return harness.Entry{Name: name, Body: "x", Mode: 0o600} }
	leading := func(target string) harness.Entry { return harness.Entry{Name: link.Name, Link: target} }
	for name, test := range map[string]struct {
		entries []harness.Entry
		reason  messages.Reason
		says    string
	}{
		"dot segments":    {[]harness.Entry{program, link, evil("../evil")}, "malformed_spec", "not in the list"},
		"absolute path":   {[]harness.Entry{program, link, evil(outside + "/evil")}, "malformed_spec", "not in the list"},
		"outward link":    {[]harness.Entry{program, leading("../../../evil")}, "malformed_spec", "leads elsewhere"},
		"absolute link":   {[]harness.Entry{program, leading(outside)}, "malformed_spec", "leads elsewhere"},
		"through a link":  {[]harness.Entry{{Name: "bin", Link: outside}, program, link}, "malformed_spec", "not in the list"},
		"program as link": {[]harness.Entry{{Name: program.Name, Link: "/bin/sh"}, link}, "malformed_spec", "leads elsewhere"},
		"no program":      {[]harness.Entry{link}, "malformed_spec", "is missing"},
		"other content":   {[]harness.Entry{{Name: program.Name, Body: "not a pr0gram", Mode: 0o755}, link}, "digest_mismatch", "other content"},
	} {
		t.Run(name, func(t *testing.T) {
			hub := harness.NewHub(t)
			hub.PublishSmall()
			hub.Publish("runtime", harness.RuntimeName, harness.Archive(t, test.entries...),
				"--files-of", harness.Archive(t, program, link), "--version", "2", "--default")
			c := hub.Companion("")
			c.Start()
			if code, got := pulled(t, c); code != 6 || !slices.Contains(got, test.reason) {
				t.Errorf("pull: exit %d, status says %q; want 6, %s", code, got, test.reason)
			}
			// Only a complete archive with the right digest is unpacked.
			if !logged(c, "artifact not available", harness.RuntimeName, "the runtime's archive", test.says) {
				t.Errorf("the log has no refusal by the unpacker, want one with %q", test.says)
			}
			checkNoRuntime(t, c)
			if left, err := os.ReadDir(outside); err != nil || len(left) != 0 {
				t.Errorf("got %v, %v outside the folder, want nothing", left, err)
			}
		})
	}
}

// M12, T6: a signed list that would lead outside the folder is refused before a byte is requested.
func TestHostileList(t *testing.T) {
	hub := harness.NewHub(t)
	hub.PublishSmall()
	hub.Publish("runtime", harness.RuntimeName, harness.Archive(t,
		harness.Entry{Name: "bin/llama-server", Body: "not a program", Mode: 0o755},
		harness.Entry{Name: "../evil", Body: "x", Mode: 0o600}), "--unchecked", "--version", "2", "--default")
	c := hub.Companion("")
	c.Start()
	if code, got := pulled(t, c); code != 6 || !slices.Contains(got, messages.ReasonMalformedSpec) {
		t.Errorf("pull: exit %d, status says %q; want 6, malformed_spec", code, got)
	}
	if asked := hub.ArtifactRequests(harness.ArtifactHost); len(asked) != 0 {
		t.Errorf("the artifact host got requests, want none:\n%s", asked)
	}
	checkNoRuntime(t, c)
}

// checkNoRuntime fails if a refused archive left anything below the companion's folders.
func checkNoRuntime(t *testing.T, c *harness.Companion) {
	t.Helper()
	for _, file := range stored(t, c) {
		if !strings.HasPrefix(file, "/models/") {
			t.Errorf("got stored %s, want only models", file)
		}
	}
	for _, file := range harness.Files(t, c.Home) {
		if strings.HasSuffix(file, "evil") {
			t.Errorf("got stored %s, want it refused", file)
		}
	}
	if status, _ := c.Status(); status.CompanionAvailable || status.Facts.Verified {
		t.Errorf("got facts %+v, want nothing verified or available", status.Facts)
	}
}

// logged reports whether one line of the companion's log has all the parts.
func logged(c *harness.Companion, parts ...string) bool {
	for line := range strings.Lines(c.Log()) {
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
			return true
		}
	}
	return false
}

// M1, M3: nothing is fetched without a session.
func TestPullNeedsSignIn(t *testing.T) {
	hub := harness.NewHub(t)
	hub.PublishSmall()
	c := hub.Companion("")
	c.Start()
	if code, got := pull(t, c); code != 4 {
		t.Errorf("pull: exit %d, %s; want 4", code, got)
	}
	if files := stored(t, c); len(files) != 0 {
		t.Errorf("got stored %v, want nothing", files)
	}
}

// M8: an interrupted download resumes where it ended. Each answer brings half of the missing bytes, except
// for the last 64 KiB: from zero each time it would never end.
func TestCutDownload(t *testing.T) {
	hub := harness.NewHub(t)
	want := hub.PublishInert(400_000)
	hub.Fault("cut", true)
	c := hub.Companion("")
	c.Start()
	c.SignIn()
	c.Await("verified", time.Minute, func(s messages.Status) bool { return s.Facts.Verified })
	if !holds(t, c, want) {
		t.Error("the model is not there, byte for byte")
	}
	if !logged(c, "download interrupted", "inert", string(messages.ReasonTransferFailed)) {
		t.Error("the log has no interrupted download, want one")
	}
	resumed := slices.DeleteFunc(hub.ArtifactRequests(harness.ArtifactHost), func(line string) bool {
		return !strings.Contains(line, `"range": "bytes=`)
	})
	if len(resumed) < 3 {
		t.Errorf("the artifact host was asked to go on %d times, want at least 3", len(resumed))
	}
}

// M8: a short outage of artifact host and hub costs only time.
func TestHostsDownForAMoment(t *testing.T) {
	hub := harness.NewHub(t)
	want := hub.PublishSmall()
	hub.Fault("artifact-error", true)
	c := hub.Companion("")
	c.Start()
	c.SignIn()
	c.Await("turned away", time.Minute, func(messages.Status) bool {
		return logged(c, "download interrupted", string(messages.ReasonBadStatus))
	})
	hub.Fault("artifact-error", false)
	c.Await("verified", time.Minute, func(s messages.Status) bool { return s.Facts.Verified && holds(t, c, want) })

	hub.Fault("server-error", true)
	if code, got := pull(t, c); code != 1 || !slices.Contains(got, messages.ReasonManifestUnreachable) {
		t.Errorf("pull: exit %d, status says %q; want 1, manifest_unreachable", code, got)
	}
	if status, _ := c.Status(); !status.Facts.Verified {
		t.Error("the model is no longer verified, want it verified")
	}
	newer := hub.PublishInert(50_000)
	hub.Fault("server-error", false)
	c.Await("the newer model", time.Minute, func(s messages.Status) bool { return s.Facts.Verified && holds(t, c, newer) })
}

// holds reports whether a file with exactly these bytes has a final name.
func holds(t *testing.T, c *harness.Companion, want []byte) bool {
	t.Helper()
	return slices.ContainsFunc(stored(t, c), func(file string) bool {
		data, err := os.ReadFile(filepath.Join(c.Data(), file))
		return err == nil && bytes.Equal(data, want)
	})
}
