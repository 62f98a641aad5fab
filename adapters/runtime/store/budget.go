package store

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/dustin/go-humanize"

	"companion/messages"
)

// budget bounds the size of all artifacts on disk (M15).
type budget struct {
	most int64 // bytes; 0: no limit

	mu       sync.Mutex
	reserved map[[32]byte]int64 // bytes of the transfers and unpackings under way, when they are complete
}

// SetBudget bounds the size of all artifacts on disk; 0 removes the bound. Artifacts that are there stay. Call it before the
// first transfer.
func (s *Store) SetBudget(bytes int64) { s.most = bytes }

// Used returns the size of the artifacts on disk: models, archives, unpacked runtimes, and the bytes of partial downloads.
func (s *Store) Used() (int64, error) { return Usage(s.dir) }

// Usage is Used for the data folder of a store that another process may have open.
func Usage(dir string) (int64, error) {
	var total int64
	for _, sub := range []string{"models", "archives", "runtimes", "partial", importFolder} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return 0, &Error{messages.ReasonTransferFailed, "measuring the artifacts on disk", bare(err)}
		}
		for _, e := range entries {
			switch filepath.Ext(e.Name()) {
			case ".json", importLock, importMode, ImportTag:
				continue // a record
			case importLink:
				continue // the user's own file
			}
			item, err := measure(filepath.Join(dir, sub, e.Name()))
			if os.IsNotExist(err) {
				continue // it was removed meanwhile
			}
			if err != nil {
				return 0, &Error{messages.ReasonTransferFailed, "measuring the artifacts on disk", bare(err)}
			}
			total += item.Bytes
		}
	}
	return total, nil
}

// reserve returns over_budget, with the numbers, if the artifact does not fit into the budget when it is complete. Otherwise
// its size counts for others until release.
func (s *Store) reserve(a messages.Artifact) error {
	if s.most == 0 {
		return nil
	}
	used, err := s.Used()
	if err != nil {
		return err
	}
	need := a.Size
	for _, f := range a.Files {
		need += f.Size
	}
	used -= s.fileSize(s.partial(a)) + s.fileSize(s.final(a))
	s.mu.Lock()
	defer s.mu.Unlock()
	for digest, bytes := range s.reserved {
		if digest != a.SHA256 {
			// What a transfer has on disk already is in used.
			other := messages.Artifact{SHA256: digest}
			used += max(0, bytes-s.fileSize(s.partial(other)))
		}
	}
	if err := overBudget(need, used, s.most); err != nil {
		return err
	}
	if s.reserved == nil {
		s.reserved = map[[32]byte]int64{}
	}
	s.reserved[a.SHA256] = need
	return nil
}

// overBudget returns over_budget, with the numbers, if the needed bytes do not fit.
func overBudget(need, used, budget int64) error {
	if used <= budget-need {
		return nil
	}
	return &Error{Reason: messages.ReasonOverBudget, what: fmt.Sprintf("the artifact needs %s and %s are used, but disk.budget is %s",
		humanize.IBytes(uint64(need)), humanize.IBytes(uint64(used)), humanize.IBytes(uint64(budget)))}
}

// Fits returns over_budget, with the numbers, if a download of a command, of size bytes in all, does not fit into the budget of
// the data folder; 0 is no budget.
func Fits(dir, download string, size, budget int64) error {
	if budget == 0 {
		return nil
	}
	used, err := Usage(dir)
	if err != nil {
		return err
	}
	if info, err := os.Lstat(download); err == nil {
		used -= info.Size()
	}
	return overBudget(size, used, budget)
}

// release ends a reservation: what is on disk counts from now on.
func (s *Store) release(a messages.Artifact) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.reserved, a.SHA256)
}

func (s *Store) fileSize(path string) int64 {
	info, err := os.Lstat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
