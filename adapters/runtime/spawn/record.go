package spawn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"companion/adapters/privatefs"
	"companion/adapters/runtime/fileid"
)

// record identifies a runtime to a later daemon (R7). A process id alone can be reused; together with boot, start time
// and program it is unique.
type record struct {
	PID       int    `json:"pid"`
	Boot      string `json:"boot,omitempty"`
	StartTime uint64 `json:"startTime"` // in the system's own unit
	Device    uint64 `json:"device"`    // of the program's file
	Inode     uint64 `json:"inode"`
}

// canaryPrefix begins the names of the files that the stage must not be able to read.
const canaryPrefix = "canary-"

func writeRecord(path string, pid int, executable *os.File) error {
	r, err := identify(pid)
	if err != nil {
		return err
	}
	file, err := fileid.Of(executable)
	if err != nil {
		return err
	}
	r.Device, r.Inode = file.Device, file.Inode
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encoding the record: %w", err)
	}
	return privatefs.WriteFile(path, data)
}

// ErrUnended is the error of Reclaim when the recorded process has been sent SIGKILL and has not ended in time, because it
// waits in the kernel. Everything else has been reclaimed, and the next runtime can start.
var ErrUnended = errors.New("the kernel has not ended the process since SIGKILL")

// Reclaim ends the runtime that the record at recordPath describes, if that process still runs, the processes of the same
// program in its session, and the processes in the control groups of daemons that have ended. It removes the record and
// the folders of earlier starts in runDir. It leaves a process alone that differs in any value. It reports whether it
// ended a recorded one. The caller is the only daemon of the user (X1).
func Reclaim(ctx context.Context, recordPath, runDir string) (ended bool, err error) {
	if !filepath.IsAbs(recordPath) {
		return false, errors.New("no place for the record")
	}
	unended := false
	data, err := privatefs.ReadRegular(recordPath)
	if err == nil {
		var r record
		if json.Unmarshal(data, &r) == nil && r.PID > 1 {
			ended, err = end(ctx, r)
			if unended = errors.Is(err, ErrUnended); err != nil && !unended {
				return false, fmt.Errorf("ending the runtime of an earlier daemon: %w", err)
			}
		}
		err = os.Remove(recordPath)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ended, fmt.Errorf("reading the record of an earlier daemon: %w", err)
	}
	endAbandonedGroups()
	err = errors.Join(sweep(runDir, startPrefix, canaryPrefix), sweep(filepath.Dir(recordPath), unfinished(recordPath), canaryPrefix))
	if err == nil && unended {
		err = ErrUnended
	}
	return ended, err
}

// unfinished returns the beginning of the name of the temporary file that remains when a daemon is killed while it
// writes the record.
func unfinished(recordPath string) string { return "." + filepath.Base(recordPath) }

// sweep removes the entries of dir whose names begin with one of the prefixes.
func sweep(dir string, prefixes ...string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("looking for what an earlier start left: %w", pathless(err))
	}
	for _, entry := range entries {
		if !slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(entry.Name(), prefix) }) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
			return fmt.Errorf("removing what an earlier start left: %w", pathless(err))
		}
	}
	return nil
}
