package store

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"companion/adapters/privatefs"
	"companion/messages"
)

// Files of the folder of imports. A command has the lock of its file as long as it runs, so that a clean-up knows what is left
// of a command that was killed.
const (
	// importFolder is on the file system of the store. Store.Open leaves it alone: an import may be running.
	importFolder = "adding"
	// importName is the format of temporary names: the process and the time in nanoseconds.
	importName = "%d-%d"
	// importLife is how long a temporary file without a lock is kept.
	importLife = 24 * time.Hour

	importLock = ".lock"
	importLink = ".link" // the user's file under a second name
	importMode = ".mode" // the mode of that file before it became read-only
	// ImportTag is the suffix of the entity tags of downloads.
	ImportTag = ".tag"
	// importBudget is locked by the command that brings bytes into a data folder with a budget: one at a time, so that two
	// do not pass the budget together.
	importBudget = "budget"
)

// ImportDir returns the folder for downloads of a command, on the file system of the store in dir.
func ImportDir(dir string) (string, error) {
	folder := filepath.Join(dir, importFolder)
	for _, d := range []string{dir, folder} {
		if err := privatefs.EnsureDir(d); err != nil {
			return "", fmt.Errorf("preparing the data folder: %w", err)
		}
	}
	return folder, nil
}

// LockImport takes the lock of a file of ImportDir, from before it is opened until it is in the store: another command would
// write into the installed file. It returns nil if another command has the lock.
func LockImport(file string) (unlock func(), err error) {
	lock, err := tryLock(file)
	if lock == nil || err != nil {
		return nil, err
	}
	return func() { release(lock) }, nil
}

// LockBudget takes the lock of the data folder's budget. It returns nil if another command has it.
func LockBudget(dir string) (unlock func(), err error) {
	folder, err := ImportDir(dir)
	if err != nil {
		return nil, err
	}
	return LockImport(filepath.Join(folder, importBudget))
}

// lockTemporary returns a name in the folder of imports that no other command has, with its lock.
func lockTemporary(folder string) (temporary string, unlock func(), err error) {
	for range 10 { // a clean-up may look at the new lock for a moment
		temporary = filepath.Join(folder, fmt.Sprintf(importName, os.Getpid(), time.Now().UnixNano()))
		if unlock, err = LockImport(temporary); unlock != nil || err != nil {
			return temporary, unlock, err
		}
	}
	return "", nil, &Error{Reason: messages.ReasonTransferFailed, what: "no file can be locked in the folder of imports"}
}

// tryLock returns nil if another process has the lock of the file.
func tryLock(file string) (*flock.Flock, error) {
	path := file + importLock
	lock := flock.New(path, flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, storing(err)
	}
	if !locked {
		return nil, nil //nolint:nilnil // documented
	}
	// The command that had the lock before may have removed the file since it was opened here.
	mine, err := lock.Stat()
	if err == nil {
		var there fs.FileInfo
		if there, err = os.Lstat(path); err == nil && os.SameFile(mine, there) {
			return lock, nil
		}
	}
	_ = lock.Unlock()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, storing(err)
	}
	return nil, nil //nolint:nilnil // documented
}

// release gives the lock back and removes its file.
func release(lock *flock.Flock) {
	removed := os.Remove(lock.Path())
	_ = lock.Unlock()
	if removed != nil && !errors.Is(removed, fs.ErrNotExist) {
		_ = os.Remove(lock.Path()) // Windows removes no open file, so this does not take the lock from another command
	}
}

// remains is what one command left in the folder of imports.
type remains struct {
	stem     string // path without suffix
	download bool   // the same command would continue it
	began    time.Time
	locks    bool // it has a lock file, which a running command has locked
	holds    bool // a file or a link, not only records
	records  []string
	bytes    int64
	modified time.Time
}

// pruneAdding removes what interrupted commands left, or only lists it with dryRun: temporary files, and downloads that were
// not changed for PartialLife. What a running command uses is locked, and stays.
func pruneAdding(dir string, now time.Time, dryRun bool) ([]messages.PrunedItem, error) {
	folder := filepath.Join(dir, importFolder)
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, bare(err)
	}
	found := map[string]*remains{}
	for _, e := range entries {
		stem, _, _ := strings.Cut(strings.TrimPrefix(e.Name(), "."), ".") // with a dot: an unfinished record
		r := found[stem]
		if r == nil {
			if r = newRemains(folder, stem); r == nil {
				continue // not a file of an import
			}
			found[stem] = r
		}
		r.add(e)
	}
	var items []messages.PrunedItem
	var failed []error
	for _, r := range found {
		item, ok, err := r.prune(now, dryRun)
		if err != nil {
			failed = append(failed, err)
		} else if ok && r.holds {
			items = append(items, item)
		}
	}
	return items, errors.Join(failed...)
}

// newRemains returns nil if stem is not a name that commands use.
func newRemains(folder, stem string) *remains {
	r := &remains{stem: filepath.Join(folder, stem)}
	var pid, nano int64
	if digest, err := hex.DecodeString(stem); err == nil && len(digest) == 32 {
		r.download = true
	} else if n, _ := fmt.Sscanf(stem, importName, &pid, &nano); n == 2 && stem == fmt.Sprintf(importName, pid, nano) {
		r.began = time.Unix(0, nano) // a link has the times of the user's file
	} else {
		return nil
	}
	return r
}

func (r *remains) add(e fs.DirEntry) {
	info, err := e.Info()
	if err != nil {
		return // it was removed meanwhile
	}
	if info.ModTime().After(r.modified) {
		r.modified = info.ModTime()
	}
	if strings.HasPrefix(e.Name(), ".") {
		r.records = append(r.records, filepath.Join(filepath.Dir(r.stem), e.Name()))
		return
	}
	switch filepath.Ext(e.Name()) {
	case importLock:
		r.locks = true
	case importLink:
		r.holds = true // and its bytes are the user's
	case "":
		r.holds, r.bytes = true, info.Size()
	}
}

// prune removes r, unless a command uses it or may go on with it, and reports whether it did.
func (r *remains) prune(now time.Time, dryRun bool) (messages.PrunedItem, bool, error) {
	item := messages.PrunedItem{Kind: "partial", Bytes: r.bytes, Modified: r.modified.UTC()}
	if r.download && r.holds && now.Sub(r.modified) < PartialLife || !r.download && !r.locks && now.Sub(r.began) < importLife {
		return item, false, nil
	}
	lock, err := tryLock(r.stem)
	if lock == nil || err != nil {
		return item, false, err
	}
	if dryRun && r.locks {
		return item, true, lock.Unlock()
	}
	defer release(lock)
	if dryRun {
		return item, true, nil
	}
	return item, true, r.remove()
}

// remove removes the files. A file of the user that has a second name here gets its mode back.
func (r *remains) remove() error {
	if text, err := os.ReadFile(r.stem + importMode); err == nil {
		if mode, err := strconv.ParseUint(string(text), 8, 9); err == nil {
			for _, name := range []string{r.stem, r.stem + importLink} {
				_ = os.Chmod(name, fs.FileMode(mode)) // one of them at most is there
			}
		}
	}
	var failed []error
	for _, file := range append(r.records, r.stem, r.stem+importLink, r.stem+importMode, r.stem+ImportTag) {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, bare(err))
		}
	}
	return errors.Join(failed...)
}
