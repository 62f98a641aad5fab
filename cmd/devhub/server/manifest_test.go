package server

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/fetcher"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"

	"companion/cmd/devhub/catalogue"
	"companion/cmd/devhub/fault"
	"companion/cmd/devhub/place"
	"companion/messages"
)

// refreshed runs go-tuf's client against the hub, with its cache in trust.
func (r *running) refreshed(trust string) (map[string]*metadata.TargetFiles, error) {
	r.Helper()
	root, err := os.ReadFile(r.place.RootFile())
	if err != nil {
		r.Fatal(err)
	}
	c, err := config.New(r.place.HubURL()+manifestPath, root)
	if err != nil {
		r.Fatal(err)
	}
	c.LocalMetadataDir, c.LocalTargetsDir = trust, trust
	f := fetcher.NewDefaultFetcher()
	f.SetHTTPClient(r.client)
	c.Fetcher = f
	u, err := updater.New(c)
	if err != nil {
		return nil, err
	}
	if err := u.Refresh(); err != nil {
		return nil, err
	}
	return u.GetTopLevelTargets(), nil
}

func custom(t *testing.T, f *metadata.TargetFiles) messages.TargetCustom {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(*f.Custom))
	decoder.DisallowUnknownFields()
	var c messages.TargetCustom
	if err := decoder.Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

// M1, M2: go-tuf's client accepts the repository from its root, before and after a publication while the hub serves. The
// artifact is under another host name and has the signed content.
func TestManifestVerifies(t *testing.T) {
	dir, trust := t.TempDir(), t.TempDir()
	r := start(t, dir, with())
	if targets, err := r.refreshed(trust); err != nil || len(targets) != 0 {
		t.Fatalf("new hub: got %v, %v, want no targets", targets, err)
	}
	content, artifactURL := publishModel(t, dir, "small")
	targets, err := r.refreshed(trust)
	if err != nil {
		t.Fatal(err)
	}
	target := targets["model/small"]
	if target == nil {
		t.Fatalf("got the targets %v, want the model among them", targets)
	}
	c := custom(t, target)
	if c.Kind != messages.KindModel || c.Name != "small" || c.Version != "1" || !c.Default ||
		len(c.URLs) != 1 || c.URLs[0] != artifactURL || !strings.HasPrefix(artifactURL, c.Origins[0]) {
		t.Errorf("got the custom field %+v, want the artifact's URL and origin", c)
	}
	u, _ := url.Parse(artifactURL)
	hub, _ := url.Parse(r.place.HubURL())
	if u.Hostname() == hub.Hostname() || u.Scheme != "https" {
		t.Errorf("got the artifact at %s and the hub at %s, want https and different hosts", u, hub)
	}
	a := r.get(artifactURL)
	if err := target.VerifyLengthHashes(a.body); err != nil || !bytes.Equal(a.body, content) {
		t.Errorf("artifact: got %v, want the published content", err)
	}
}

// The manifest needs no token and ignores one.
func TestManifestIgnoresAuthorization(t *testing.T) {
	r := start(t, t.TempDir(), with())
	req, err := http.NewRequest(http.MethodGet, r.place.HubURL()+manifestPath+"timestamp.json", nil)
	req.Header.Set("Authorization", "Bearer nonsense")
	if a := r.do(req, err); a.status != http.StatusOK {
		t.Errorf("with a token: got status %d, want 200", a.status)
	}
	for _, name := range []string{"..%2fca.key", "keys", "9.targets.json", "root.pem"} {
		if a := r.get(r.place.HubURL() + manifestPath + name); a.status == http.StatusOK {
			t.Errorf("%s: got status 200, want it refused", name)
		}
	}
}

// M1: each manifest fault is refused by go-tuf's client, for its own reason; without it, accepted.
func TestManifestFaults(t *testing.T) {
	dir, trust := t.TempDir(), t.TempDir()
	publishModel(t, dir, "small")
	r := start(t, dir, with())
	if _, err := r.refreshed(trust); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[fault.Name]string{
		fault.ExpiredManifest:    "expired",
		fault.RolledBackManifest: "must be >=",
		fault.WrongSignature:     "not enough signatures",
		fault.TruncatedManifest:  "unexpected end of JSON",
	} {
		turn(t, dir, name, true)
		if _, err := r.refreshed(trust); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
		turn(t, dir, name, false)
	}
	turn(t, dir, fault.ManifestFromArtifact, true)
	a := r.get(r.place.HubURL() + manifestPath + "timestamp.json")
	if target := a.header.Get("Location"); a.status != http.StatusFound || r.get(target).status != http.StatusOK {
		t.Errorf("manifest-from-artifact-host: got status %d to %q, want 302 to the manifest", a.status, target)
	}
	turn(t, dir, fault.ManifestFromArtifact, false)
	turn(t, dir, fault.RefusedToken, true)
	if a := r.get(r.place.HubURL() + manifestPath + "timestamp.json"); a.status != http.StatusUnauthorized {
		t.Errorf("refused-token: got status %d, want 401", a.status)
	}
	turn(t, dir, fault.RefusedToken, false)
	turn(t, dir, fault.WebPage, true)
	if a := r.get(r.place.HubURL() + manifestPath + "timestamp.json"); a.status != http.StatusOK || !bytes.HasPrefix(a.body, []byte("<!DOCTYPE html>")) {
		t.Errorf("web-page: got status %d %q, want 200 and a web page", a.status, a.body)
	}
	turn(t, dir, fault.WebPage, false)
	if _, err := r.refreshed(trust); err != nil {
		t.Error(err)
	}
}

// M2, M4, M6: metadata with wrong content still has valid signatures.
func TestManifestLies(t *testing.T) {
	dir := t.TempDir()
	content, artifactURL := publishModel(t, dir, "small")
	r := start(t, dir, with())
	for name, lie := range map[fault.Name]func(*metadata.TargetFiles) bool{
		fault.WrongLength: func(f *metadata.TargetFiles) bool { return f.Length == int64(len(content))+1 },
		fault.WrongDigest: func(f *metadata.TargetFiles) bool { return f.VerifyLengthHashes(content) != nil },
		fault.SameHost: func(f *metadata.TargetFiles) bool {
			c := custom(t, f)
			return strings.HasPrefix(c.URLs[0], r.place.HubURL()+"/") && strings.HasPrefix(c.URLs[0], c.Origins[0]) &&
				bytes.Equal(r.get(c.URLs[0]).body, content)
		},
		fault.OutsideOrigin: func(f *metadata.TargetFiles) bool {
			c := custom(t, f)
			return !strings.HasPrefix(c.URLs[0], c.Origins[0]) && bytes.Equal(r.get(c.URLs[0]).body, content)
		},
		fault.PlainHTTP: func(f *metadata.TargetFiles) bool {
			return custom(t, f).URLs[0] == strings.Replace(artifactURL, "https", "http", 1)
		},
	} {
		turn(t, dir, name, true)
		targets, err := r.refreshed(t.TempDir())
		if err != nil || !lie(targets["model/small"]) {
			t.Errorf("%s: got %v, %+v, want the fault", name, err, targets["model/small"])
		}
		turn(t, dir, name, false)
	}
}

// Range requests and their validator work, so that a download can resume (M8).
func TestArtifactRange(t *testing.T) {
	dir := t.TempDir()
	content, artifactURL := publishModel(t, dir, "small")
	r := start(t, dir, with())
	tag := r.get(artifactURL).header.Get("ETag")
	ask := func(ifRange string) answer {
		req, err := http.NewRequest(http.MethodGet, artifactURL, nil)
		req.Header.Set("Range", "bytes=1000-")
		req.Header.Set("If-Range", ifRange)
		return r.do(req, err)
	}
	if a := ask(tag); a.status != http.StatusPartialContent || !bytes.Equal(a.body, content[1000:]) {
		t.Errorf("range: got status %d and %d bytes, want 206 and %d", a.status, len(a.body), len(content)-1000)
	}
	if a := ask(`"another"`); a.status != http.StatusOK || len(a.body) != len(content) {
		t.Errorf("range of another object: got status %d and %d bytes, want 200 and %d", a.status, len(a.body), len(content))
	}
	turn(t, dir, fault.NoRange, true)
	if a := ask(tag); a.status != http.StatusOK {
		t.Errorf("no-range: got status %d, want 200", a.status)
	}
	turn(t, dir, fault.NoRange, false)
	turn(t, dir, fault.ChangedETag, true)
	if a := ask(tag); a.status != http.StatusOK || a.header.Get("ETag") == tag {
		t.Errorf("changed-etag: got status %d, want 200 and another ETag", a.status)
	}
}

func TestArtifactFaults(t *testing.T) {
	dir := t.TempDir()
	content, artifactURL := publishModel(t, dir, "small")
	r := start(t, dir, with())
	different := func(a, b []byte) (n int) {
		for i := range min(len(a), len(b)) {
			if a[i] != b[i] {
				n++
			}
		}
		return n
	}
	for name, played := range map[fault.Name]func(answer) bool{
		fault.FlippedByte: func(a answer) bool { return len(a.body) == len(content) && different(a.body, content) == 1 },
		fault.Truncated: func(a answer) bool {
			return a.err == nil && len(a.body) == len(content)-surplus && different(a.body, content) == 0
		},
		fault.Extended: func(a answer) bool {
			return a.err == nil && len(a.body) == len(content)+surplus && different(a.body, content) == 0
		},
		fault.Cut:             func(a answer) bool { return a.err != nil && len(a.body) <= len(content)/2 },
		fault.Slow:            func(a answer) bool { return bytes.Equal(a.body, content) },
		fault.ArtifactMissing: func(a answer) bool { return a.status == http.StatusNotFound },
		fault.ArtifactError:   func(a answer) bool { return a.status == http.StatusServiceUnavailable },
		fault.RedirectElsewhere: func(a answer) bool {
			to := a.header.Get("Location")
			return a.status == http.StatusFound && strings.HasPrefix(to, r.place.HubURL()+"/") &&
				bytes.Equal(r.get(to).body, content)
		},
	} {
		turn(t, dir, name, true)
		if a := r.get(artifactURL); !played(a) {
			t.Errorf("%s: got status %d, %d bytes, %v, want the fault", name, a.status, len(a.body), a.err)
		}
		turn(t, dir, name, false)
	}
	if a := r.get(artifactURL); !bytes.Equal(a.body, content) {
		t.Error("without a fault: got other bytes, want the published artifact")
	}
}

// Every fault name is used in one of the tests.
func TestEveryFaultIsTested(t *testing.T) {
	var source []byte
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		source = append(source, data...)
	}
	constants, err := os.ReadFile("../fault/fault.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fault.All {
		before, _, found := strings.Cut(string(constants), `"`+string(f.Name)+`"`)
		if !found {
			t.Fatalf("got no constant for %s, want one", f.Name)
		}
		words := strings.Fields(before[strings.LastIndex(before, "\n"):])
		if !bytes.Contains(source, []byte("fault."+words[len(words)-3])) {
			t.Errorf("got no test that uses %s, want one", f.Name)
		}
	}
}

// After a restart on other ports the signed URLs contain the new ports.
func TestURLsFollowThePorts(t *testing.T) {
	dir := t.TempDir()
	content, _ := publishModel(t, dir, "small")
	r := start(t, dir, with())
	r.stop()
	p, err := place.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	taken, err := listenOn("127.0.0.1", p.ArtifactPort())
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r = start(t, dir, with())
	targets, err := r.refreshed(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if target := custom(t, targets["model/small"]).URLs[0]; !bytes.Equal(r.get(target).body, content) {
		t.Errorf("got other bytes at the signed URL, want the artifact")
	}
}

// M12: publish lists every file and link of a runtime archive.
func TestPublishRuntime(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(t.TempDir(), "rt.tar.gz")
	writeArchive(t, file, map[string]string{"bin/llama-server": "program", "bin/libx.so.0.1": "library"},
		map[string]string{"bin/libx.so.0": "libx.so.0.1"})
	p, err := place.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := catalogue.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	e, err := c.Publish(t.Context(), http.DefaultClient, catalogue.Publication{
		Kind: messages.KindRuntime, Name: "llama", Platform: "linux/amd64",
	}, file)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]messages.TargetFile{}
	for _, f := range e.Custom.Files {
		got[f.Path] = f
	}
	if len(got) != 3 || got["bin/libx.so.0"].Link != "libx.so.0.1" || !got["bin/llama-server"].Executable ||
		got["bin/libx.so.0.1"].Size != 7 || len(got["bin/libx.so.0.1"].SHA256) != 64 ||
		e.Custom.Executable != "bin/llama-server" || e.Custom.Format != "tar.gz" {
		t.Errorf("got %+v, want all files and links", e.Custom)
	}
	r := start(t, dir, with())
	targets, err := r.refreshed(t.TempDir())
	if err != nil || targets["runtime/linux/amd64/llama"] == nil {
		t.Errorf("got the targets %v, %v, want the runtime among them", targets, err)
	}
}

// M12: publish refuses an archive that no client unpacks, unless Unchecked is set.
func TestPublishRefusesBadArchives(t *testing.T) {
	p, err := place.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c, err := catalogue.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	good := map[string]string{"bin/llama-server": "program"}
	for name, archive := range map[string]struct{ files, links map[string]string }{
		"dot segments":  {map[string]string{"bin/llama-server": "program", "../evil": "x"}, nil},
		"absolute":      {map[string]string{"bin/llama-server": "program", "/evil": "x"}, nil},
		"outward link":  {good, map[string]string{"bin/evil": "../../etc/passwd"}},
		"absolute link": {good, map[string]string{"bin/evil": "/etc/passwd"}},
		"no program":    {map[string]string{"bin/other": "x"}, nil},
	} {
		file := filepath.Join(t.TempDir(), "rt.tar.gz")
		writeArchive(t, file, archive.files, archive.links)
		publication := catalogue.Publication{Kind: messages.KindRuntime, Name: "llama", Platform: "linux/amd64"}
		if _, err := c.Publish(t.Context(), http.DefaultClient, publication, file); err == nil {
			t.Errorf("%s: got nil, want an error", name)
		}
		publication.Unchecked = true
		if _, err := c.Publish(t.Context(), http.DefaultClient, publication, file); err != nil && name != "no program" {
			t.Errorf("%s, unchecked: got %v, want nil", name, err)
		}
	}
}

func writeArchive(t *testing.T, file string, files, links map[string]string) {
	t.Helper()
	var out bytes.Buffer
	gz := gzip.NewWriter(&out)
	w := tar.NewWriter(gz)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range links {
		if err := w.WriteHeader(&tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeSymlink}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
