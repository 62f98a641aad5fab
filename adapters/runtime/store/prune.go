package store

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"companion/adapters/runtime/archive"
	"companion/messages"
)

// PartialLife is how long a partial download is kept after its last change (M15).
const PartialLife = 14 * 24 * time.Hour

// Prune removes the versions whose digest is not in keep (M15), and what interrupted commands left in the folder of
// imports (M16). A partial download is removed only if it was not changed for PartialLife. With dryRun nothing is
// removed. Prune returns the items that it removed, or would remove, even with an error. No job may run for an
// artifact that is not in keep.
func (s *Store) Prune(keep map[[32]byte]bool, now time.Time, dryRun bool) ([]messages.PrunedItem, error) {
	items := []messages.PrunedItem{}
	added, err := pruneAdding(s.dir, now, dryRun)
	items, failed := append(items, added...), []error{err}
	for kind, c := range map[string]struct{ folder, extension string }{
		"model": {"models", ".gguf"}, "link": {linksFolder, ".gguf"}, "archive": {"archives", ".bin"}, "runtime": {"runtimes", ""}, "partial": {"partial", ".part"},
	} {
		entries, err := os.ReadDir(filepath.Join(s.dir, c.folder))
		if err != nil {
			failed = append(failed, bare(err))
			continue
		}
		for _, e := range entries {
			digest, err := hex.DecodeString(strings.TrimSuffix(e.Name(), c.extension))
			if err != nil || len(digest) != 32 || filepath.Ext(e.Name()) != c.extension || keep[[32]byte(digest)] {
				continue
			}
			path := filepath.Join(s.dir, c.folder, e.Name())
			item, err := measure(path)
			if err != nil || kind == "partial" && now.Sub(item.Modified) < PartialLife || kind != "partial" && s.added(path, now) {
				continue
			}
			if item.Kind = kind; kind == "link" {
				item.Kind, item.Bytes = "model", 0 // the user's own file stays, with its bytes
			}
			if !dryRun {
				if err := errors.Join(archive.Remove(path), remove(path)); err != nil {
					failed = append(failed, err)
					continue
				}
			}
			items = append(items, item)
		}
	}
	return items, errors.Join(failed...)
}

// added reports whether a file may have just been added (M16): its digest was never verified, and its inode changed
// in the last hour. The catalogue that names it may not have been read yet.
func (s *Store) added(path string, now time.Time) bool {
	f, id, err := s.open(path)
	if err != nil {
		return false
	}
	_ = f.Close()
	return s.pinned(path) == (messages.FileIdentity{}) && now.Sub(time.Unix(0, id.ChangeNano)) < time.Hour
}

// measure returns the size of a file, or the total size of the files in a folder.
func measure(path string) (messages.PrunedItem, error) {
	var item messages.PrunedItem
	err := filepath.WalkDir(path, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if name == path {
			item.Modified = info.ModTime().UTC()
		}
		if info.Mode().IsRegular() {
			item.Bytes += info.Size()
		}
		return nil
	})
	return item, err
}
