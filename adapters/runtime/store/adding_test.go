//go:build linux

package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"companion/messages"
)

// M15, M16: prune finds what commands that were killed left in the folder of imports: temporary files at once, downloads after
// two weeks. It leaves alone what a running command has locked, what the same command continues, and other files. A dry run lists
// the same and removes nothing.
func TestRemainsOfImports(t *testing.T) {
	s := open(t)
	folder, err := ImportDir(s.dir)
	must(t, err)
	now, old := time.Now(), time.Now().Add(-2*PartialLife)
	write := func(name string, modified time.Time) {
		t.Helper()
		path := filepath.Join(folder, name)
		must(t, os.WriteFile(path, []byte("xy"), 0o600), os.Chtimes(path, modified, modified))
	}
	stays := map[string]bool{}
	for _, c := range []struct {
		stem     string
		suffixes string // of the files
		modified time.Time
		locked   bool
		stays    bool
	}{
		{fmt.Sprintf("17-%d", now.UnixNano()), " .lock", now, false, false},
		{fmt.Sprintf("18-%d", now.UnixNano()), ".link .lock", old, false, false},
		{fmt.Sprintf("19-%d", now.UnixNano()), " .lock", now, true, true},
		{fmt.Sprintf("20-%d", now.UnixNano()), "", old, false, true}, // of a command that has no lock yet
		{fmt.Sprintf("21-%d", old.UnixNano()), "", now, false, false},
		{strings.Repeat("aa", 32), " .tag", now, false, true},
		{strings.Repeat("ab", 32), " .tag .lock", old, false, false},
		{strings.Repeat("ac", 32), " .tag .lock", old, true, true},
		{strings.Repeat("ad", 32), ".lock", now, false, false},
		{strings.Repeat("ae", 32), ".tag", now, false, false},
		{"." + strings.Repeat("ba", 32), ".tag123", now, false, false}, // a record that was being written
		{fmt.Sprintf(".22-%d", old.UnixNano()), ".mode123", now, false, false},
		{"notes", "", old, false, true},
		{"1-2-3", "", old, false, true},
	} {
		for _, suffix := range strings.Split(c.suffixes, " ") {
			if suffix != importLock || !c.locked {
				write(c.stem+suffix, c.modified)
			}
			stays[c.stem+suffix] = c.stays
		}
		if c.locked {
			unlock, err := LockImport(filepath.Join(folder, c.stem))
			must(t, err)
			defer unlock()
		}
	}
	for range 2 {
		items, err := s.Prune(nil, now, true)
		if err != nil || len(items) != 4 {
			t.Fatalf("dry run: got %v, %v, want 4 items", items, err)
		}
	}
	left := func() (all []string) {
		entries, err := os.ReadDir(folder)
		must(t, err)
		for _, e := range entries {
			all = append(all, e.Name())
		}
		return all
	}
	if n := len(left()); n < len(stays)-2 { // of the empty remains only locks and tags may go
		t.Errorf("dry run: got %d files left, want %d", n, len(stays))
	}
	items, err := s.Prune(nil, now, false)
	if err != nil || len(items) != 4 || slices.ContainsFunc(items, func(i messages.PrunedItem) bool { return i.Kind != "partial" || i.Bytes > 2 }) {
		t.Errorf("got %v, %v, want 4 partial items", items, err)
	}
	names := left()
	for name, want := range stays {
		if slices.Contains(names, name) != want {
			t.Errorf("%s: got %t, want it left: %t", name, !want, want)
		}
	}
}

// M16: the file of the user, which a killed command has made read-only under its second name, gets its mode back.
func TestRemainsGiveModeBack(t *testing.T) {
	s := open(t)
	folder, err := ImportDir(s.dir)
	must(t, err)
	for _, suffix := range []string{"", importLink} {
		file := filepath.Join(t.TempDir(), "m.gguf")
		stem := filepath.Join(folder, fmt.Sprintf("17-%d", time.Now().UnixNano()))
		must(t, os.WriteFile(file, content, 0o600), os.Link(file, stem+suffix), os.Chmod(file, 0o400),
			os.WriteFile(stem+importMode, []byte("640"), 0o600), os.WriteFile(stem+importLock, nil, 0o600))
		_, err := s.Prune(nil, time.Now(), false)
		must(t, err)
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("%q: got %v, %v, want mode 0640", suffix, info.Mode(), err)
		}
		if left, err := os.ReadDir(folder); err != nil || len(left) != 0 {
			t.Errorf("%q: got %v, %v, want nothing left", suffix, left, err)
		}
	}
}

// M15, M16: an import that would pass the budget is refused with the numbers, and leaves nothing. What takes no bytes is not
// refused: a link, and a file that is here already.
func TestImportBudget(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	file := userFile(t, dir, strings.Repeat("a model ", 1000))
	add := func(m Import) (Imported, error) {
		m.Dir, m.File, m.testOnlyClone = dir, file, noClone
		done, err := m.Run(t.Context())
		if left, listing := os.ReadDir(filepath.Join(dir, importFolder)); listing != nil || len(left) != 0 {
			t.Errorf("%+v: got %v, %v, want no remains", m, left, listing)
		}
		return done, err
	}
	copied := Import{Kind: messages.KindModel, Copy: true, Budget: 7999}
	_, err := add(copied)
	if reasonOf(err) != messages.ReasonOverBudget || !strings.Contains(err.Error(), "needs 7.8 KiB and 0 B are used, but disk.budget is 7.8 KiB") {
		t.Errorf("got %v, want over_budget with the numbers", err)
	}
	clone := copied
	clone.testOnlyClone = func(_, _ *os.File) error { t.Error("got a clone, want none past the budget"); return errors.New("x") }
	clone.Dir, clone.File = dir, file
	if _, err := clone.Run(t.Context()); reasonOf(err) != messages.ReasonOverBudget {
		t.Errorf("a clone: got %v, want over_budget", err)
	}
	if done, err := add(Import{Kind: messages.KindModel, Budget: 1}); err != nil || done.Way != WayLink {
		t.Errorf("a link: got %+v, %v, want it made", done, err)
	}
	copied.Budget = 8000
	if done, err := add(Import{Kind: messages.KindRuntime, Copy: true, Budget: 8000}); err != nil || done.Way != WayCopy {
		t.Errorf("within the budget: got %+v, %v, want a copy", done, err)
	}
	if done, err := add(Import{Kind: messages.KindRuntime, Copy: true, Budget: 8000}); err != nil || done.Way != WayHere {
		t.Errorf("the same again: got %+v, %v, want it here", done, err)
	}
	if _, err := add(copied); reasonOf(err) != messages.ReasonOverBudget {
		t.Errorf("past the budget: got %v, want over_budget", err)
	}
}

// M15, M16: what commands have fetched so far counts for the budget of the daemon and of other commands, and not twice for the
// download itself.
func TestAddingCounts(t *testing.T) {
	s := open(t)
	folder, err := ImportDir(s.dir)
	must(t, err)
	download := filepath.Join(folder, strings.Repeat("ab", 32))
	must(t, os.WriteFile(download, content, 0o600), os.WriteFile(download+ImportTag, []byte("tag"), 0o600))
	size := int64(len(content))
	if used, err := s.Used(); err != nil || used != size {
		t.Errorf("got %d bytes, %v, want %d", used, err, size)
	}
	s.SetBudget(2*size - 1)
	if _, err := s.Accumulate(model(), source); reasonOf(err) != messages.ReasonOverBudget {
		t.Errorf("a download of the daemon: got %v, want over_budget", err)
	}
	if err := Fits(s.dir, download, 2*size-1, 2*size-1); err != nil {
		t.Errorf("the same download: got %v, want that it fits", err)
	}
	if err := Fits(s.dir, download, 2*size, 2*size-1); reasonOf(err) != messages.ReasonOverBudget {
		t.Errorf("a larger download: got %v, want over_budget", err)
	}
	if err := Fits(s.dir, download, 1<<40, 0); err != nil {
		t.Errorf("without a budget: got %v, want that it fits", err)
	}
}

// M15: commands that bring bytes into a data folder with a budget take turns.
func TestLockBudget(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	unlock, err := LockBudget(dir)
	if err != nil || unlock == nil {
		t.Fatalf("the first: got %t, %v, want the lock", unlock != nil, err)
	}
	if again, err := LockBudget(dir); err != nil || again != nil {
		t.Errorf("the second: got %t, %v, want no lock", again != nil, err)
	}
	unlock()
	again, err := LockBudget(dir)
	if err != nil || again == nil {
		t.Fatalf("after the first: got %t, %v, want the lock", again != nil, err)
	}
	again()
}
