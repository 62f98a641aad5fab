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

// refreshed runs go-tuf's own client against the hub, with its cache in trust.
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

// M1, M2: go-tuf's client accepts the repository from its root, before and after a publication that
// happens while the hub serves; the artifact is under another host name, and is what was signed.
func TestManifestVerifies(t *testing.T) {
	dir, trust := t.TempDir(), t.TempDir()
	r := start(t, dir, with())
	if targets, err := r.refreshed(trust); err != nil || len(targets) != 0 {
		t.Fatalf("new hub: %v %v", targets, err)
	}
	content, artifactURL := publishModel(t, dir, "small")
	targets, err := r.refreshed(trust)
	if err != nil {
		t.Fatal(err)
	}
	target := targets["model/small"]
	if target == nil {
		t.Fatalf("not in the manifest: %v", targets)
	}
	c := custom(t, target)
	if c.Kind != messages.KindModel || c.Name != "small" || c.Version != "1" || !c.Default ||
		len(c.URLs) != 1 || c.URLs[0] != artifactURL || !strings.HasPrefix(artifactURL, c.Origins[0]) {
		t.Errorf("custom: %+v", c)
	}
	u, _ := url.Parse(artifactURL)
	hub, _ := url.Parse(r.place.HubURL())
	if u.Hostname() == hub.Hostname() || u.Scheme != "https" {
		t.Errorf("artifact at %s, hub at %s", u, hub)
	}
	a := r.get(artifactURL)
	if err := target.VerifyLengthHashes(a.body); err != nil || !bytes.Equal(a.body, content) {
		t.Errorf("artifact: %v", err)
	}
}

// The manifest needs no token and does not mind one.
func TestManifestIgnoresAuthorization(t *testing.T) {
	r := start(t, t.TempDir(), with())
	req, err := http.NewRequest(http.MethodGet, r.place.HubURL()+manifestPath+"timestamp.json", nil)
	req.Header.Set("Authorization", "Bearer nonsense")
	if a := r.do(req, err); a.status != http.StatusOK {
		t.Errorf("with a token: %d", a.status)
	}
	for _, name := range []string{"..%2fca.key", "keys", "9.targets.json", "root.pem"} {
		if a := r.get(r.place.HubURL() + manifestPath + name); a.status == http.StatusOK {
			t.Errorf("%s is served", name)
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
			t.Errorf("%s: %v, want %q", name, err, want)
		}
		turn(t, dir, name, false)
	}
	turn(t, dir, fault.ManifestFromArtifact, true)
	a := r.get(r.place.HubURL() + manifestPath + "timestamp.json")
	if target := a.header.Get("Location"); a.status != http.StatusFound || r.get(target).status != http.StatusOK {
		t.Errorf("manifest-from-artifact-host: %d to %q", a.status, target)
	}
	turn(t, dir, fault.ManifestFromArtifact, false)
	turn(t, dir, fault.RefusedToken, true)
	if a := r.get(r.place.HubURL() + manifestPath + "timestamp.json"); a.status != http.StatusUnauthorized {
		t.Errorf("refused-token: answered %d, want 401", a.status)
	}
	turn(t, dir, fault.RefusedToken, false)
	turn(t, dir, fault.WebPage, true)
	if a := r.get(r.place.HubURL() + manifestPath + "timestamp.json"); a.status != http.StatusOK || !bytes.HasPrefix(a.body, []byte("<!DOCTYPE html>")) {
		t.Errorf("web-page: answered %d %q, want 200 and a web page", a.status, a.body)
	}
	turn(t, dir, fault.WebPage, false)
	if _, err := r.refreshed(trust); err != nil {
		t.Error(err)
	}
}

// M2, M4, M6: the faults in what the manifest says are well signed.
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
			t.Errorf("%s is not played: %v %+v", name, err, targets["model/small"])
		}
		turn(t, dir, name, false)
	}
}

// Ranges and their validator work, so that a download can resume (M8).
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
		t.Errorf("range: %d, %d bytes", a.status, len(a.body))
	}
	if a := ask(`"another"`); a.status != http.StatusOK || len(a.body) != len(content) {
		t.Errorf("range of another object: %d, %d bytes", a.status, len(a.body))
	}
	turn(t, dir, fault.NoRange, true)
	if a := ask(tag); a.status != http.StatusOK {
		t.Errorf("no-range is not played: %d", a.status)
	}
	turn(t, dir, fault.NoRange, false)
	turn(t, dir, fault.ChangedETag, true)
	if a := ask(tag); a.status != http.StatusOK || a.header.Get("ETag") == tag {
		t.Errorf("changed-etag is not played: %d", a.status)
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
			t.Errorf("%s is not played: %d, %d bytes, %v", name, a.status, len(a.body), a.err)
		}
		turn(t, dir, name, false)
	}
	if a := r.get(artifactURL); !bytes.Equal(a.body, content) {
		t.Error("without a fault the artifact is not what was published")
	}
}

// A fault that no test plays would be a promise without proof: every name is in one of the tests.
func TestEveryFaultIsTested(t *testing.T) {
	var source []byte
	for _, file := range []string{"signin_test.go", "manifest_test.go"} {
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
			t.Fatalf("no constant for %s", f.Name)
		}
		words := strings.Fields(before[strings.LastIndex(before, "\n"):])
		if !bytes.Contains(source, []byte("fault."+words[len(words)-3])) {
			t.Errorf("no test plays %s", f.Name)
		}
	}
}

// After a restart on other ports the signed URLs follow.
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
		t.Errorf("the signed URL does not serve the artifact")
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
		t.Errorf("listed %+v", e.Custom)
	}
	r := start(t, dir, with())
	targets, err := r.refreshed(t.TempDir())
	if err != nil || targets["runtime/linux/amd64/llama"] == nil {
		t.Errorf("in the manifest: %v %v", targets, err)
	}
}

// M12: what no client unpacks is refused at publishing, unless a test wants it.
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
			t.Errorf("%s: published", name)
		}
		publication.Unchecked = true
		if _, err := c.Publish(t.Context(), http.DefaultClient, publication, file); err != nil && name != "no program" {
			t.Errorf("%s, unchecked: %v", name, err)
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
