package spawn

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroup is the control group of one runtime (R5, R6). Writing one of its files kills all its processes, even those that
// have left their parent and session. Where the user may set memory and process limits, the kernel also counts the real
// use of the runtime; elsewhere RLIMIT_DATA is the only limit.
type cgroup struct {
	path string
	dir  *os.File
}

// maxTasks bounds processes and threads: the runtime has a few threads per processor.
const maxTasks = 512

// groupPrefix begins a group's name. The daemon's process id and start time follow, so that a later daemon can tell
// whether this daemon still runs.
const groupPrefix = "companion-runtime-"

// newCgroup makes the group of one start, with limits where the system allows them. It returns nil where the system
// offers no group (no cgroup v2, or no right to make one), which is not an error.
func newCgroup(memory int64) *cgroup {
	parents := cgroupParents()
	for _, limited := range []bool{true, false} {
		for _, parent := range parents {
			if limited && !limitable(parent) {
				continue
			}
			if g := makeCgroup(parent, memory, limited); g != nil {
				return g
			}
		}
	}
	return nil
}

// cgroupParents are the possible parents of a runtime's group. A group that has processes, such as the daemon's own,
// may not limit its children; its parent may, if it is delegated to the user.
func cgroupParents() []string {
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
	var parents []string
	for _, parent := range []string{path, filepath.Dir(path)} {
		if within, err := filepath.Rel(root, parent); err == nil && filepath.IsLocal(within) {
			parents = append(parents, parent)
		}
	}
	return parents
}

// cgroupPlace finds the mount of cgroup v2 and this process's group in it, from mountinfo (proc(5)) and the line of
// hierarchy 0 (cgroups(7)).
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

// limitable enables the controllers for the children of the group, and reports whether they are enabled.
func limitable(parent string) bool {
	control := filepath.Join(parent, "cgroup.subtree_control")
	wanted := []string{"memory", "pids"}
	if hasAll(control, wanted) {
		return true
	}
	// Fails for a group that has processes or is not delegated to this user.
	return os.WriteFile(control, []byte("+memory +pids"), 0) == nil && hasAll(control, wanted)
}

func makeCgroup(parent string, memory int64, limited bool) *cgroup {
	self, err := identify(os.Getpid())
	if err != nil {
		return nil
	}
	path, err := os.MkdirTemp(parent, groupName(self)+"-")
	if err != nil {
		return nil
	}
	g := &cgroup{path: path}
	if limited {
		err = g.limit(memory)
	}
	if err != nil {
		_ = os.Remove(path)
		return nil
	}
	if g.dir, err = os.Open(path); err != nil {
		_ = os.Remove(path)
		return nil
	}
	return g
}

// groupName returns the beginning of the names of a daemon's groups.
func groupName(daemon record) string {
	return fmt.Sprintf("%s%d-%d", groupPrefix, daemon.PID, daemon.StartTime)
}

// endAbandonedGroups kills the processes in the groups of daemons that have ended, and removes the groups.
func endAbandonedGroups() {
	for _, parent := range cgroupParents() {
		entries, err := os.ReadDir(parent)
		if err != nil {
			continue
		}
		for _, entry := range entries {
			if abandoned(entry.Name()) {
				(&cgroup{path: filepath.Join(parent, entry.Name())}).end()
			}
		}
	}
}

// abandoned reports whether name belongs to a group whose daemon has ended. A process that reuses the daemon's id has a
// later start time.
func abandoned(name string) bool {
	var daemon record
	if n, err := fmt.Sscanf(name, groupPrefix+"%d-%d-", &daemon.PID, &daemon.StartTime); n != 2 || err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	now, err := identify(daemon.PID)
	return err != nil && errors.Is(err, os.ErrNotExist) || err == nil && now.StartTime != daemon.StartTime
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

// outOfMemory reports whether the kernel killed a process of the group because of its memory limit.
func (g *cgroup) outOfMemory() bool {
	if g == nil {
		return false
	}
	events, err := os.ReadFile(filepath.Join(g.path, "memory.events"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(events)) {
		if kills, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			return kills != "0"
		}
	}
	return false
}

// end kills the processes that are left in the group and removes it. On a nil group it does nothing.
func (g *cgroup) end() {
	if g == nil {
		return
	}
	_ = g.dir.Close() // nil for the group of another daemon
	// Killing the maximum number of processes takes seconds on a slow machine.
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		g.kill()
		if err := os.Remove(g.path); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
	}
}

// kill kills all members at once (cgroup.kill), and then one by one: a kernel before 5.14 has no cgroup.kill, and later ones send its
// signal to the first thread of each process, so that a process whose first thread has ended lives on. A new process is
// killed in the next round.
func (g *cgroup) kill() {
	_ = os.WriteFile(filepath.Join(g.path, "cgroup.kill"), []byte("1"), 0)
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
