// Package artifact decides which manifest entries can be used (contract M2, M4, M12). It is the one place with
// these limits: the publisher, the reader of the manifest, provision and the unpacker all ask it, so that what one
// of them accepts no other refuses.
package artifact

import (
	"encoding/hex"
	"fmt"

	"companion/adapters/origin"
	"companion/messages"
)

// Limits of one artifact. Real ones stay far below; the limits stop overflows, bombs and endless lists.
const (
	MaxSize     = 1 << 40 // bytes of the file as it is served
	MaxSources  = 16      // URLs, and origins
	MaxFiles    = 4096    // in a runtime archive; upstream's have about forty
	MaxUnpacked = 16 << 30
	MaxPath     = 512 // bytes of a path in an archive
	maxLinkHops = 8
)

// Error says why an entry cannot be used. Its text holds paths of the archive at most.
type Error struct {
	Reason messages.Reason // malformed_spec
	What   string
}

func (e *Error) Error() string { return fmt.Sprintf("artifact: %s (%s)", e.What, e.Reason) }

func refuse(format string, args ...any) error {
	return &Error{messages.ReasonMalformedSpec, fmt.Sprintf(format, args...)}
}

// Check returns nil if a can be fetched, verified and used. Errors: *Error, or *origin.Error for a URL that is not
// inside an allowed origin.
func Check(a messages.Artifact) error {
	switch {
	case a.Name == "" || a.SHA256 == [32]byte{}:
		return refuse("no name or no digest")
	case a.Size <= 0 || a.Size > MaxSize:
		return refuse("a size of %d bytes, want 1 to %d", a.Size, int64(MaxSize))
	case len(a.Parts) > 0:
		return checkParts(a)
	case !isPlain(a.Settings):
		return refuse("settings of a model without the digest over them")
	}
	// What the user added from a file has no URL (M16).
	if local := a.Own && len(a.URLs) == 0 && len(a.Origins) == 0; !local {
		if err := CheckSources(a.URLs, a.Origins); err != nil {
			return err
		}
	}
	if err := checkChunks(a); err != nil {
		return err
	}
	switch a.Kind {
	case messages.KindModel:
		if a.Format != "" || a.Executable != "" || len(a.Files) != 0 {
			return refuse("a model with the fields of a runtime")
		}
		return nil
	case messages.KindRuntime:
		if a.Format != "tar.gz" && a.Format != "zip" {
			return refuse("an unknown archive format; want tar.gz or zip")
		}
		if a.Embedding {
			return refuse("a runtime that is an embedding model")
		}
		return CheckFiles(a.Files, a.Executable)
	}
	return refuse("an unknown kind; want model or runtime")
}

// CheckSources returns nil if every URL is inside one of the origins (M4).
func CheckSources(urls, origins []string) error {
	if len(urls) == 0 || len(urls) > MaxSources || len(origins) == 0 || len(origins) > MaxSources {
		return refuse("%d URLs and %d origins, want 1 to %d of each", len(urls), len(origins), MaxSources)
	}
	for _, url := range urls {
		if err := origin.Allowed(url, origins); err != nil {
			return err
		}
	}
	return nil
}

// Files converts the list of a manifest entry. It checks only what the conversion would lose; CheckFiles checks the
// rest.
func Files(listed []messages.TargetFile) ([]messages.ArchiveFile, error) {
	if len(listed) > MaxFiles {
		return nil, refuse("%d files, want at most %d", len(listed), MaxFiles)
	}
	var files []messages.ArchiveFile
	for _, f := range listed {
		out := messages.ArchiveFile{Path: f.Path, Size: f.Size, Executable: f.Executable, LinkTarget: f.Link}
		switch {
		case f.Link != "" && (f.SHA256 != "" || f.Executable):
			return nil, refuse("a link with a digest or a mode")
		case f.Link == "":
			var ok bool
			if out.SHA256, ok = digest(f.SHA256); !ok {
				return nil, refuse("a file without a digest in lower-case hex")
			}
		}
		files = append(files, out)
	}
	return files, nil
}

// digest decodes a SHA-256 digest in lower-case hex.
func digest(text string) (d [32]byte, ok bool) {
	decoded, err := hex.DecodeString(text)
	if err != nil || len(decoded) != len(d) || hex.EncodeToString(decoded) != text {
		return d, false
	}
	return [32]byte(decoded), true
}
