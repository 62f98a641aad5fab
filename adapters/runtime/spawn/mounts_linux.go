package spawn

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// coverTime bounds the covering. A dead file server can hold up a call at its mount point, which the kernel ends when
// the stage executes.
const coverTime = 2 * time.Second

// coveredInTime reports whether coverMounts has succeeded.
func coveredInTime(needed []string) bool {
	done := make(chan error, 1)
	go func() { done <- coverMounts(needed) }() // the stage ends it
	select {
	case err := <-done:
		return err == nil
	case <-time.After(coverTime):
		return false
	}
}

// coverMounts covers the mounts that the runtime does not need with empty folders, in the stage's own mount namespace.
// Landlock does not restrict looking up a path, and the server of a FUSE or network file system learns each name that
// is looked up: a runtime could tell it something by names. Landlock keeps the files there closed anyway, so the runtime
// misses nothing. Mounts that are made later do not appear in the namespace.
//
// A mount stays that a needed path is in, or that lies in a needed folder. So does a mount of a single file, in which no
// name can be looked up.
func coverMounts(needed []string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("separating the mounts: %w", err)
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("listing the mounts: %w", pathless(err))
	}
	return coverAll(coverable(string(text), resolved(needed)), cover)
}

// coverAll covers each mount point. One that cannot be covered leaves no other one visible.
func coverAll(points []string, cover func(point string) error) error {
	var all error
	for _, point := range points {
		if err := cover(point); err != nil {
			all = errors.Join(all, fmt.Errorf("covering a mount: %w", err))
		}
	}
	return all
}

// cover mounts an empty folder over a mount point. It asks the file system below for nothing: its server may be dead.
func cover(point string) error {
	err := unix.Mount("none", point, "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=4k,nr_inodes=1,mode=0555")
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
		return nil // gone, or a file
	case errors.Is(err, unix.EACCES) && errors.Is(unix.Lstat(point, &unix.Stat_t{}), unix.EACCES):
		return nil // below a folder that this user may not search
	case err != nil:
		return err
	}
	var top unix.Statfs_t
	if err := unix.Statfs(point, &top); err != nil {
		return err
	}
	if top.Type != unix.TMPFS_MAGIC || top.Files != 1 {
		return errors.New("it is still visible")
	}
	return nil
}

// coverable returns the mount points of a mountinfo (proc_pid_mountinfo(5)) at which nothing needed is, without those
// below another one.
func coverable(mountinfo string, needed []string) []string {
	var points []string
	for line := range strings.Lines(mountinfo) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		point := mountPoint.Replace(fields[4])
		if !slices.Contains(points, point) && !slices.ContainsFunc(needed, func(path string) bool { return below(path, point) || below(point, path) }) {
			points = append(points, point)
		}
	}
	return slices.DeleteFunc(slices.Clone(points), func(point string) bool {
		return slices.ContainsFunc(points, func(other string) bool { return other != point && below(point, other) })
	})
}

// mountPoint decodes what the kernel escapes in a mount point.
var mountPoint = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// below reports whether path is dir or within it, by their names.
func below(path, dir string) bool {
	rest, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rest)
}

// resolved returns the paths, and where their links lead. A descriptor needs no path.
func resolved(paths []string) []string {
	all := slices.Clone(paths)
	for _, path := range paths {
		if real, err := filepath.EvalSymlinks(path); err == nil && !strings.HasPrefix(path, "/proc/self/") {
			all = append(all, real)
		}
	}
	return all
}

// needed are the paths that the stage and the runtime open by name, canaries included: what is covered is not there to
// be refused.
func (p *plan) needed() []string {
	policy := p.Policy
	paths := slices.Concat(policy.ReadFiles, policy.ReadDirs, policy.ListDirs, policy.Devices, policy.Canary.Files,
		[]string{policy.Loader, policy.Canary.Dir, filepath.Dir(policy.Socket)})
	return slices.DeleteFunc(paths, func(path string) bool { return path == "" })
}
