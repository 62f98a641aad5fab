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
	path, err := os.MkdirTemp(parent, "companion-runtime-")
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
	_ = os.WriteFile(filepath.Join(g.path, "cgroup.kill"), []byte("1"), 0)
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if err := os.Remove(g.path); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
	}
}
