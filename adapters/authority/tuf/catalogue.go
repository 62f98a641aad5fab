package tuf

import (
	"cmp"
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"companion/adapters/artifact"
	"companion/adapters/origin"
	"companion/messages"
)

// Catalogue is one verified manifest, for one platform. The zero Catalogue is empty.
type Catalogue struct {
	Version   int64     // of the targets metadata
	Expires   time.Time // the earliest expiry among root, timestamp, snapshot and targets
	CheckedAt time.Time // when it was last fetched and verified

	entries []entry
	refused map[string]messages.Reason // "model/NAME" or "runtime/NAME" of a target that breaks M2 or M4
}

type entry struct {
	artifact messages.Artifact
	isMain   bool // the manifest's default
}

// Standing returns the validity of the catalogue at now, a time of the wall clock (M1): ReasonOK while it is unexpired;
// ReasonManifestExpired with inGrace true while a verified model may still serve; ReasonManifestExpired with inGrace false
// afterwards. If the clock was set back to before the last check, the time of that check counts.
func (c Catalogue) Standing(now time.Time, grace time.Duration) (reason messages.Reason, inGrace bool) {
	now = now.Round(0)
	if now.Before(c.CheckedAt) {
		now = c.CheckedAt
	}
	if !now.After(c.Expires) {
		return messages.ReasonOK, false
	}
	return messages.ReasonManifestExpired, !now.After(c.Expires.Add(grace))
}

// Model returns the model of that name, or the default when name is empty. The reason is ReasonOK,
// no_such_target, or why the target is refused.
func (c Catalogue) Model(name string) (messages.Artifact, messages.Reason) {
	return c.find(messages.KindModel, name)
}

// Runtime returns the platform's runtime of that name, or the default when name is empty.
func (c Catalogue) Runtime(name string) (messages.Artifact, messages.Reason) {
	return c.find(messages.KindRuntime, name)
}

// Models returns all models by name, and which one is the default.
func (c Catalogue) Models() (models []messages.Artifact, main string) {
	models = c.All(messages.KindModel)
	if a, reason := c.Model(""); reason == messages.ReasonOK {
		main = a.Name
	}
	return models, main
}

// Default returns the artifact of the kind that the catalogue marks as the default, if it marks exactly one.
func (c Catalogue) Default(kind messages.ArtifactKind) (messages.Artifact, bool) {
	var found []messages.Artifact
	for _, e := range c.entries {
		if e.artifact.Kind == kind && e.isMain {
			found = append(found, e.artifact)
		}
	}
	if len(found) != 1 {
		return messages.Artifact{}, false
	}
	return found[0], true
}

// Find returns the artifact of that kind and name.
func (c Catalogue) Find(kind messages.ArtifactKind, name string) (messages.Artifact, bool) {
	a, reason := c.find(kind, name)
	return a, name != "" && reason == messages.ReasonOK
}

// All returns the artifacts of a kind by name.
func (c Catalogue) All(kind messages.ArtifactKind) []messages.Artifact {
	var all []messages.Artifact
	for _, e := range c.entries {
		if e.artifact.Kind == kind {
			all = append(all, e.artifact)
		}
	}
	return all
}

// Names reports whether the catalogue has an artifact of that kind and name, also one that is refused.
func (c Catalogue) Names(kind messages.ArtifactKind, name string) bool {
	_, reason := c.find(kind, name)
	return name != "" && reason != messages.ReasonNoSuchTarget
}

// Digests returns the digest that identifies each artifact that the catalogue offers.
func (c Catalogue) Digests() [][32]byte {
	digests := make([][32]byte, 0, len(c.entries))
	for _, e := range c.entries {
		digests = append(digests, e.artifact.SHA256)
	}
	return digests
}

// FileDigests returns the SHA-256 of every file that the catalogue offers: a model may have several (M17).
func (c Catalogue) FileDigests() [][32]byte {
	digests := make([][32]byte, 0, len(c.entries))
	for _, e := range c.entries {
		for _, f := range artifact.Members(e.artifact) {
			digests = append(digests, f.SHA256)
		}
	}
	return digests
}

func (c Catalogue) find(kind messages.ArtifactKind, name string) (messages.Artifact, messages.Reason) {
	var all, main []messages.Artifact
	for _, e := range c.entries {
		if e.artifact.Kind != kind {
			continue
		}
		if name != "" && e.artifact.Name == name {
			return e.artifact, messages.ReasonOK
		}
		all = append(all, e.artifact)
		if e.isMain {
			main = append(main, e.artifact)
		}
	}
	switch {
	case name != "":
		if reason, ok := c.refused[string(kind)+"/"+name]; ok {
			return messages.Artifact{}, reason
		}
		return messages.Artifact{}, messages.ReasonNoSuchTarget
	case len(main) == 1:
		return main[0], messages.ReasonOK
	case len(main) > 1: // ambiguous
		return messages.Artifact{}, messages.ReasonMalformedSpec
	case len(all) == 1:
		return all[0], messages.ReasonOK
	}
	for key, reason := range c.refused {
		if len(all) == 0 && strings.HasPrefix(key, string(kind)+"/") {
			return messages.Artifact{}, reason
		}
	}
	return messages.Artifact{}, messages.ReasonNoSuchTarget
}

// catalogue reads a verified set. Of all expiry dates, the earliest counts.
func (c *Client) catalogue(set *trustedmetadata.TrustedMetadata, checkedAt time.Time) Catalogue {
	cat := c.reader().entries(set)
	cat.CheckedAt = checkedAt
	for _, e := range []time.Time{set.Root.Signed.Expires, set.Timestamp.Signed.Expires, set.Snapshot.Signed.Expires} {
		if e.Before(cat.Expires) {
			cat.Expires = e
		}
	}
	return cat
}

// reader reads the targets of a verified set for one platform.
type reader struct {
	platform     string
	privateHosts []string
	hub          string // the host of the manifest, from which no artifact may come (M2)
	own          bool   // of the user's own catalogue
}

func (c *Client) reader() reader {
	return reader{platform: c.config.Platform, privateHosts: c.config.PrivateHosts, hub: c.base.Hostname()}
}

// entries reads the targets of a verified set. A target that breaks M2 or M4 is refused; the others are not affected.
func (c reader) entries(set *trustedmetadata.TrustedMetadata) Catalogue {
	targets := set.Targets[metadata.TARGETS].Signed
	cat := Catalogue{Version: targets.Version, Expires: targets.Expires, refused: map[string]messages.Reason{}}
	for name, file := range targets.Targets {
		kind, platform, short, ok := splitTarget(name)
		if !ok || kind == messages.KindRuntime && platform != c.platform {
			continue
		}
		e, err := c.parseTarget(kind, platform, short, file)
		if err != nil {
			cat.refused[string(kind)+"/"+short] = targetReason(err)
			continue
		}
		cat.entries = append(cat.entries, e)
	}
	slices.SortFunc(cat.entries, func(a, b entry) int { return cmp.Compare(a.artifact.Name, b.artifact.Name) })
	return cat
}

func targetReason(err error) messages.Reason {
	var s *origin.Error
	if errors.As(err, &s) {
		return s.Reason
	}
	return messages.ReasonMalformedSpec
}

var (
	nameForm    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	versionForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$`)
)

// splitTarget reads a target's path: "model/NAME" or "runtime/OS/ARCH/NAME".
func splitTarget(target string) (kind messages.ArtifactKind, platform, name string, ok bool) {
	parts := strings.Split(target, "/")
	switch {
	case len(parts) == 2 && parts[0] == string(messages.KindModel):
		kind, name = messages.KindModel, parts[1]
	case len(parts) == 4 && parts[0] == string(messages.KindRuntime):
		kind, platform, name = messages.KindRuntime, parts[1]+"/"+parts[2], parts[3]
	}
	return kind, platform, name, kind != "" && nameForm.MatchString(name)
}

var errMalformed = errors.New("a malformed target")

func (c reader) parseTarget(kind messages.ArtifactKind, platform, name string, file *metadata.TargetFiles) (entry, error) {
	var custom messages.TargetCustom
	if file == nil || file.Custom == nil {
		return entry{}, errMalformed
	}
	if err := artifact.CheckSchema(*file.Custom); err != nil {
		return entry{}, err
	}
	if err := json.Unmarshal(*file.Custom, &custom, json.RejectUnknownMembers(true)); err != nil {
		return entry{}, errMalformed
	}
	if custom.Kind != kind || custom.Name != name || custom.Platform != platform || !versionForm.MatchString(custom.Version) {
		return entry{}, errMalformed
	}
	digest := file.Hashes["sha256"]
	if len(digest) != 32 {
		return entry{}, errMalformed
	}
	files, err := artifact.Files(custom.Files)
	if err != nil {
		return entry{}, err
	}
	chunks, err := artifact.Chunks(custom.Chunks)
	if err != nil {
		return entry{}, err
	}
	a := messages.Artifact{
		Name: name, Version: custom.Version, Kind: kind, URLs: custom.URLs, Origins: custom.Origins,
		PrivateHosts: c.privateHosts, SHA256: [32]byte(digest), Size: file.Length, Embedding: custom.Embedding,
		Format: custom.Format, Executable: custom.Executable, Files: files,
		ChunkSize: custom.ChunkSize, Chunks: chunks,
		Own: c.own,
	}
	if a, err = artifact.Compose(a, custom); err != nil {
		return entry{}, err
	}
	if err := artifact.Check(a); err != nil {
		return entry{}, err
	}
	for _, f := range artifact.Members(a) {
		if err := c.checkHosts(f.URLs, f.Origins); err != nil {
			return entry{}, err
		}
	}
	return entry{a, custom.Default}, nil
}

// checkHosts checks M2 for each URL and origin: the manifest and the artifacts must come from different hosts. Origins
// count because a redirect may lead anywhere inside them.
func (c reader) checkHosts(urls, origins []string) error {
	for _, u := range slices.Concat(urls, origins) {
		host, err := origin.Host(u)
		if err != nil {
			return err
		}
		if sameHost(host, c.hub) {
			return &origin.Error{Reason: messages.ReasonSourceNotAllowed}
		}
	}
	return nil
}

// sameHost compares host names without regard to case and trailing dot.
func sameHost(a, b string) bool {
	return strings.EqualFold(strings.TrimRight(a, "."), strings.TrimRight(b, "."))
}
