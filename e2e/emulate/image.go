package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"companion/e2e/emulate/plan"
)

// pack builds the test programs for the machine and writes them as the machine's whole system to dir/initramfs.
func pack(ctx context.Context, dir string, m machine) error {
	env := []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + m.arch}
	for name, arguments := range map[string][]string{
		"init":         {"build", "-trimpath", "companion/e2e/emulate/guest"},
		"hostile":      {"build", "-trimpath", "companion/e2e/hostile"},
		"spawn.test":   {"test", "-c", "-trimpath", "companion/adapters/runtime/spawn"},
		"sandbox.test": {"test", "-c", "-trimpath", "companion/adapters/runtime/spawn/sandbox"},
	} {
		last := len(arguments) - 1
		arguments = append(append(arguments[:last:last], "-o", filepath.Join(dir, name)), arguments[last])
		if _, err := output(ctx, env, "go", arguments...); err != nil {
			return fmt.Errorf("building %s: %w", name, err)
		}
	}
	suites, err := json.Marshal(suites(m))
	if err != nil {
		return err
	}
	var a cpio
	a.add(plan.File, 0o100644, suites)
	a.add("/etc/passwd", 0o100644, []byte("root:x:0:0::/:/bin/sh\n"))
	a.add("/etc/hostname", 0o100644, []byte("emulated\n")) // the canaries outside the policy read it
	for name, source := range map[string]string{
		"/init": "init", plan.Hostile + "/hostile": "hostile", "/test/spawn": "spawn.test", "/test/sandbox": "sandbox.test", "/bin/busybox": "busybox",
	} {
		data, err := os.ReadFile(filepath.Join(dir, source))
		if err != nil {
			return err
		}
		a.add(name, 0o100755, data)
	}
	for _, name := range []string{"sh", "sleep", "setsid", "true", "cat"} {
		a.add("/bin/"+name, 0o120777, []byte("busybox"))
	}
	// The kernel opens the console before any program can mount /dev.
	a.device("/dev/console", 5, 1)
	return os.WriteFile(filepath.Join(dir, "initramfs"), a.end(), 0o644)
}

// cpio writes an archive in the only format that the kernel unpacks: newc, of its
// Documentation/driver-api/early-userspace/buffer-format.rst.
type cpio struct {
	bytes.Buffer
	entries int
	folders map[string]bool
}

func (c *cpio) add(name string, mode int, data []byte) {
	c.folder(path.Dir(name))
	c.entry(name, mode, data, 0, 0)
}

func (c *cpio) device(name string, major, minor int) {
	c.folder(path.Dir(name))
	c.entry(name, 0o020600, nil, major, minor)
}

// folder creates a folder and its parents, once.
func (c *cpio) folder(name string) {
	if name == "/" || c.folders[name] {
		return
	}
	c.folder(path.Dir(name))
	if c.folders == nil {
		c.folders = map[string]bool{}
	}
	c.folders[name] = true
	c.entry(name, 0o040755, nil, 0, 0)
}

func (c *cpio) entry(name string, mode int, data []byte, major, minor int) {
	c.entries++
	name = strings.TrimPrefix(name, "/")
	fmt.Fprintf(c, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		c.entries, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0, name)
	c.pad()
	c.Write(data)
	c.pad()
}

func (c *cpio) pad() {
	for c.Len()%4 != 0 {
		c.WriteByte(0)
	}
}

func (c *cpio) end() []byte {
	c.entry("TRAILER!!!", 0, nil, 0, 0)
	return c.Bytes()
}
