package spawn

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroup is a control group of the runtime alone (R5): where the user may make one with memory and
// process limits, the kernel counts what the runtime really uses, and one file ends all in it. It
// stands beside RLIMIT_DATA, which is all there is elsewhere.
type cgroup struct {
	path string
	dir  *os.File
}

// maxTasks bounds processes and threads: the runtime has some threads for each processor.
const maxTasks = 512

// groupPrefix begins a group's name; the daemon's process id follows.
const groupPrefix = "companion-runtime-"

// newCgroup makes the group of one start, or returns nil where the system offers none: no cgroup v2,
// no controllers, or no right to use them. That is no failure.
func newCgroup(memory int64) *cgroup {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil
	}
	root, path := cgroupPlace(string(mounts), string(own))
	if root == "" {
		return nil
	}
	// A group with processes of its own, such as ours, may not limit its children; the one above,
	// when it was given to the user, may.
	for _, parent := range []string{path, filepath.Dir(path)} {
		if within, err := filepath.Rel(root, parent); err != nil || !filepath.IsLocal(within) {
			continue
		}
		if g := makeCgroup(parent, memory); g != nil {
			return g
		}
	}
	return nil
}

// cgroupPlace finds the mount of cgroup v2 and our own group in it: mountinfo as in proc(5), and the
// line of hierarchy 0 as in cgroups(7).
func cgroupPlace(mountinfo, own string) (root, path string) {
	for line := range strings.Lines(mountinfo) {
		before, after, _ := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if kind := strings.Fields(after); len(kind) > 0 && kind[0] == "cgroup2" && len(fields) > 4 && fields[3] == "/" {
			root = fields[4]
			break
		}
	}
	for line := range strings.Lines(own) {
		if group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::/"); ok && root != "" {
			return root, filepath.Join(root, group)
		}
	}
	return "", ""
}

func makeCgroup(parent string, memory int64) *cgroup {
	control := filepath.Join(parent, "cgroup.subtree_control")
	wanted := []string{"memory", "pids"}
	if !hasAll(control, wanted) {
		// Refused for a group that has processes or was not given to us.
		if err := os.WriteFile(control, []byte("+memory +pids"), 0); err != nil || !hasAll(control, wanted) {
			return nil
		}
	}
	removeAbandoned(parent)
	path, err := os.MkdirTemp(parent, fmt.Sprintf("%s%d-", groupPrefix, os.Getpid()))
	if err != nil {
		return nil
	}
	g := &cgroup{path: path}
	if err := g.limit(memory); err != nil {
		_ = os.Remove(path)
		return nil
	}
	if g.dir, err = os.Open(path); err != nil {
		_ = os.Remove(path)
		return nil
	}
	return g
}

// removeAbandoned removes the groups of daemons that were killed: their runtimes ended with them, but
// nobody was left to remove the group. The kernel keeps a group that has processes.
func removeAbandoned(parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, entry := range entries {
		rest, ok := strings.CutPrefix(entry.Name(), groupPrefix)
		owner, _, _ := strings.Cut(rest, "-")
		if pid, err := strconv.Atoi(owner); ok && err == nil && unix.Kill(pid, 0) == unix.ESRCH {
			_ = os.Remove(filepath.Join(parent, entry.Name()))
		}
	}
}

func hasAll(control string, wanted []string) bool {
	data, err := os.ReadFile(control)
	if err != nil {
		return false
	}
	enabled := strings.Fields(string(data))
	return !slices.ContainsFunc(wanted, func(name string) bool { return !slices.Contains(enabled, name) })
}

func (g *cgroup) limit(memory int64) error {
	values := map[string]string{"pids.max": strconv.Itoa(maxTasks)}
	if memory > 0 {
		values["memory.max"] = strconv.FormatInt(memory, 10)
		values["memory.oom.group"] = "1"
	}
	var errs []error
	for name, value := range values {
		errs = append(errs, os.WriteFile(filepath.Join(g.path, name), []byte(value), 0))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("limiting the control group: %w", pathless(err))
	}
	return nil
}

// end kills whatever is left in the group and removes it. A nil group has nothing.
func (g *cgroup) end() {
	if g == nil {
		return
	}
	_ = g.dir.Close()
	// As many processes as the group may have take seconds to end on a slow machine.
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		g.kill()
		if err := os.Remove(g.path); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
	}
}

// kill ends all members, on a kernel before 5.14 one by one: whoever is born meanwhile meets the next
// round.
func (g *cgroup) kill() {
	if os.WriteFile(filepath.Join(g.path, "cgroup.kill"), []byte("1"), 0) == nil {
		return
	}
	members, err := os.ReadFile(filepath.Join(g.path, "cgroup.procs"))
	if err != nil {
		return
	}
	for _, member := range strings.Fields(string(members)) {
		if pid, err := strconv.Atoi(member); err == nil && pid > 0 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}
