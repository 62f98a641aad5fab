package spawn

import (
	"errors"
	"slices"
	"testing"
)

// R4: which mounts are covered: those at which nothing needed is, each once, and not what they hold themselves.
func TestCoverable(t *testing.T) {
	const mountinfo = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw - proc proc rw
24 23 0:30 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw
25 22 0:22 / /sys rw - sysfs sysfs rw
26 25 0:23 / /sys/devices/virtual/x rw - debugfs none rw
27 25 0:24 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
28 22 0:25 / /home rw - nfs4 server:/home rw
29 28 0:26 / /home/u/with\040space rw - fuse.sshfs far:/ rw
30 22 0:27 / /mnt/far rw - fuse.sshfs far:/ rw
31 30 0:28 / /mnt/far/deeper rw - fuse.sshfs far:/ rw
32 22 0:29 / /mnt/farther rw - fuse.sshfs far:/ rw
33 22 0:29 / /mnt/farther rw - fuse.sshfs far:/ rw
34 22 0:33 /x /etc/hosts rw - ext4 /dev/sda1 rw
a short line
`
	needed := []string{"/proc/self/fd/3", "/sys/devices", "/home/u/.local/share/companion/runtimes/x", "/lib", "/usr/lib"}
	want := []string{"/proc/sys/fs/binfmt_misc", "/sys/fs/cgroup", "/home/u/with space", "/mnt/far", "/mnt/farther", "/etc/hosts"}
	if got := coverable(mountinfo, needed); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := coverable(mountinfo, append(needed, "/home/u/with space/x", "/etc")); slices.Contains(got, "/home/u/with space") || slices.Contains(got, "/etc/hosts") {
		t.Errorf("got %q, want no mount at a needed path", got)
	}
}

// R4: a mount that cannot be covered keeps no later one visible, and every failure is reported.
func TestCoverGoesOn(t *testing.T) {
	first, second := errors.New("first"), errors.New("second")
	refused := map[string]error{"/a": first, "/c": second}
	var tried []string
	err := coverAll([]string{"/a", "/b", "/c", "/d"}, func(point string) error {
		tried = append(tried, point)
		return refused[point]
	})
	if want := []string{"/a", "/b", "/c", "/d"}; !slices.Equal(tried, want) {
		t.Errorf("got the mounts %q tried, want %q", tried, want)
	}
	if !errors.Is(err, first) || !errors.Is(err, second) {
		t.Errorf("got %v, want both failures", err)
	}
	if err := coverAll([]string{"/b"}, func(string) error { return nil }); err != nil {
		t.Errorf("got %v, want no error", err)
	}
}
