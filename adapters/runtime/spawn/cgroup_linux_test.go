package spawn

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// R5: this process's group is found where cgroup v2 is mounted, alone or together with v1.
func TestCgroupPlace(t *testing.T) {
	const unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
	const hybrid = "31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
	tests := map[string]struct{ mounts, own, root, path string }{
		"unified":   {unified, "0::/user.slice/user-1000.slice/app.slice/x.scope\n", "/sys/fs/cgroup", "/sys/fs/cgroup/user.slice/user-1000.slice/app.slice/x.scope"},
		"hybrid":    {hybrid, "4:memory:/x\n0::/\n", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified"},
		"v1 alone":  {"31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", "4:memory:/x\n", "", ""},
		"part only": {"30 23 0:26 /docker /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/\n", "", ""},
		"no group":  {unified, "", "", ""},
		"nonsense":  {"x - \n - cgroup2\n", "0::", "", ""},
	}
	for name, test := range tests {
		if root, path := cgroupPlace(test.mounts, test.own); root != test.root || path != test.path {
			t.Errorf("%s: got %q, %q, want %q, %q", name, root, path, test.root, test.path)
		}
	}
}

// R5: limits are written where the controllers are enabled, and no group is made where they are not.
func TestCgroupLimits(t *testing.T) {
	parent := t.TempDir()
	control := filepath.Join(parent, "cgroup.subtree_control")
	for content, want := range map[string]bool{"cpu memory pids": true, "cpu pids": false, "": false} {
		if err := os.WriteFile(control, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if hasAll(control, []string{"memory", "pids"}) != want {
			t.Errorf("%q: got %v, want %v", content, !want, want)
		}
	}
	if g := makeCgroup(filepath.Join(parent, "none"), 1<<30, true); g != nil {
		t.Error("got a group in a missing folder, want none")
	}
	g := &cgroup{path: parent}
	for _, name := range []string{"memory.max", "memory.oom.group", "pids.max"} {
		if err := os.WriteFile(filepath.Join(parent, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.limit(1 << 30); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"memory.max": "1073741824", "memory.oom.group": "1", "pids.max": "512"} {
		if data, err := os.ReadFile(filepath.Join(parent, name)); err != nil || string(data) != want {
			t.Errorf("%s: got %q, %v, want %q", name, data, err, want)
		}
	}
	if err := (&cgroup{path: filepath.Join(parent, "none")}).limit(0); err == nil || strings.Contains(err.Error(), "/") {
		t.Errorf("got %v, want an error without a path", err)
	}
	(*cgroup)(nil).end()
}

// R5, R6: in a real group, the child starts inside it, and ending the group also ends a process that left the process
// group. The test needs a cgroup v2 in which this user may make a group.
func TestCgroupEndsAll(t *testing.T) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	root, parent := cgroupPlace(string(mounts), string(own))
	if root == "" {
		t.Skip("no cgroup v2 here: nothing is proven by this test")
	}
	path, err := os.MkdirTemp(parent, "companion-test-")
	if err != nil {
		t.Skipf("no right to make a cgroup here: nothing is proven by this test: %v", err)
	}
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	g := &cgroup{path: path, dir: dir}
	cmd := exec.Command("/bin/sh", "-c", "setsid sleep 300 & echo $!; read never")
	cmd.SysProcAttr = stageAttributes(g)
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = input.Close() }()
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		g.end()
		t.Fatal(err)
	}
	buffer := make([]byte, 32)
	n, err := output.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	escaped, err := strconv.Atoi(strings.TrimSpace(string(buffer[:n])))
	if err != nil {
		t.Fatal(err)
	}
	members, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
	if err != nil || !strings.Contains(string(members), strconv.Itoa(cmd.Process.Pid)) || !strings.Contains(string(members), strconv.Itoa(escaped)) {
		t.Errorf("got the members %q, %v, want both processes", members, err)
	}
	done := make(chan struct{})
	go func() {
		(&group{cmd: cmd, cgroup: g}).wait()
		close(done)
	}()
	_ = syscall.Kill(cmd.Process.Pid, syscall.SIGKILL)
	<-done
	if alive(escaped) {
		t.Error("got a living process that left the process group, want it ended")
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("removing the group: got %v, want it gone", err)
	}
}

// R5: a process that forks without end reaches the limit of the group, and all processes end with the group.
func TestCgroupStopsForks(t *testing.T) {
	g := newCgroup(0)
	if g == nil || !limitable(filepath.Dir(g.path)) {
		g.end()
		t.Skip("the system offers no control group with memory and pids: nothing is proven by this test")
	}
	const bomb = `i=0; while [ $i -lt 600 ]; do sleep 300 >/dev/null 2>&1 & i=$((i+1)); done; echo all; wait`
	cmd := exec.Command("/bin/sh", "-c", bomb)
	cmd.SysProcAttr = stageAttributes(g)
	output, err := cmd.Output() // the shell ends when it cannot fork
	if err == nil || strings.Contains(string(output), "all") {
		t.Errorf("got %q, %v from the shell, want a failed fork", output, err)
	}
	events, err := os.ReadFile(filepath.Join(g.path, "pids.events"))
	if err != nil || strings.Contains(string(events), "max 0\n") {
		t.Errorf("got pids.events %q, %v, want refused forks", events, err)
	}
	left, err := os.ReadFile(filepath.Join(g.path, "cgroup.procs"))
	if count := strings.Count(string(left), "\n"); err != nil || count < 400 || count > maxTasks {
		t.Errorf("got %d processes, %v, want 400 to %d", count, err, maxTasks)
	}
	g.end()
	if _, err := os.Stat(g.path); !os.IsNotExist(err) {
		t.Errorf("removing the group: got %v, want it gone", err)
	}
}

// R2, R7: the processes in the group of a daemon that has ended are killed at the next start, also when its process id
// is in use again. The group of a running daemon is not touched.
func TestAbandonedGroupsEnd(t *testing.T) {
	g := newCgroup(0)
	if g == nil {
		t.Skip("the system offers no control group: nothing is proven by this test")
	}
	defer g.end()
	self, err := identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	dead, recycled := self, self
	dead.PID = 1 << 30 // no process has such an id
	recycled.StartTime--
	parent := filepath.Dir(g.path)
	for name, want := range map[string]struct {
		owner record
		lives bool
	}{"living daemon": {self, true}, "dead daemon": {dead, false}, "recycled number": {recycled, false}} {
		path, err := os.MkdirTemp(parent, groupName(want.owner)+"-")
		if err != nil {
			t.Fatal(err)
		}
		dir, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		group := &cgroup{path: path, dir: dir}
		cmd := exec.Command("sleep", "300")
		cmd.SysProcAttr = stageAttributes(group)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		record := filepath.Join(t.TempDir(), "runtime.json")
		if _, err := Reclaim(t.Context(), record, filepath.Dir(record)); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); os.IsNotExist(err) == want.lives {
			t.Errorf("%s: got %v for the group, want it kept: %v", name, err, want.lives)
		}
		select {
		case <-ended:
			if want.lives {
				t.Errorf("%s: got a killed process, want it alive", name)
			}
		default:
			if !want.lives {
				<-ended // reaped soon after the group is gone
			}
		}
		group.end()
		<-ended
	}
}

// R2, T8: a group ends although the first thread of a process in it has ended and another one lives: cgroup.kill alone does not
// kill that process.
func TestGroupWithoutFirstThreadEnds(t *testing.T) {
	g := newCgroup(0)
	if g == nil {
		t.Skip("the system offers no control group: nothing is proven by this test")
	}
	cmd := exec.Command("python3", "-c", fmt.Sprintf(`import ctypes, threading, time
threading.Thread(target=time.sleep, args=(300,)).start()
ctypes.CDLL(None).syscall(%d, 0)`, unix.SYS_EXIT))
	cmd.SysProcAttr = stageAttributes(g)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stat := fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		data, err := os.ReadFile(stat)
		if err == nil && strings.Contains(string(data), ") Z ") {
			break
		}
		if err != nil || time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			t.Fatalf("got %s, %v, want a process whose first thread has ended", data, err)
		}
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	defer func() { _ = cmd.Process.Kill(); <-ended }()
	g.end()
	if _, err := os.Stat(g.path); !os.IsNotExist(err) {
		t.Errorf("got %v for the group, want it gone", err)
	}
}
