//go:build linux

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"companion/adapters/runtime/archive"
	"companion/messages"
)

const (
	childRole = "STORE_TEST_CHILD"
	childDir  = "STORE_TEST_DIR"
	childStep = "STORE_TEST_STEP"
	// childChunks lets the child fetch the model by chunks.
	childChunks = "STORE_TEST_CHUNKS"
)

var testTime = time.Unix(1_700_000_000, 0)

// children are the functions that the test binary runs as a child process.
var children = map[string]func() int{"crash": crashChild, "full": fullChild, "noexec": noexecChild, "unwritable": unwritableChild}

func child(t *testing.T, role, dir string, step int) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childRole+"="+role, childDir+"="+dir, childStep+"="+strconv.Itoa(step))
	return cmd
}

func cleanup(s *Store) {
	for _, sub := range []string{"runtimes"} {
		entries, _ := os.ReadDir(filepath.Join(s.dir, sub))
		for _, e := range entries {
			_ = archive.Remove(filepath.Join(s.dir, sub, e.Name()))
		}
	}
}

// both stores a model and a runtime completely.
func both(s *Store) error {
	ctx := context.Background()
	m := model()
	if _, err := s.Model(ctx, m, false); errors.Is(err, ErrNotHere) {
		if os.Getenv(childChunks) != "" {
			err = putChunks(s, chunkedModel())
		} else {
			err = put(s, m, content)
		}
		if err != nil {
			return err
		}
	}
	_, errModel := s.Model(ctx, m, false)
	r, data := packedData(&testing.T{}, "library")
	if _, err := s.Runtime(ctx, r, false); errors.Is(err, ErrNotHere) {
		if err := s.Archived(ctx, r); errors.Is(err, ErrNotHere) {
			if err := put(s, r, data); err != nil {
				return err
			}
		}
		if _, err := s.Unpack(ctx, r); err != nil {
			return err
		}
	}
	_, errRuntime := s.Runtime(ctx, r, true)
	return errors.Join(errModel, errRuntime)
}

// crashChild kills its own process at the given change of the disk.
func crashChild() int {
	s, err := Open(os.Getenv(childDir))
	if err != nil {
		return 3
	}
	left, _ := strconv.Atoi(os.Getenv(childStep))
	s.testOnlyStep = func() {
		if left--; left == 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	if err := both(s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 4
	}
	return 0
}

// M7: the process is killed after each change of the disk in turn. A file with a final name is then right, and the next start
// completes the work.
func TestCrashAtEveryStep(t *testing.T) { crashAtEveryStep(t) }

// M14, M7: likewise for a model that is fetched by chunks.
func TestCrashAtEveryStepOfChunks(t *testing.T) {
	t.Setenv(childChunks, "1")
	crashAtEveryStep(t)
}

func crashAtEveryStep(t *testing.T) {
	t.Helper()
	for step := 1; ; step++ {
		dir := filepath.Join(t.TempDir(), "data")
		cmd := child(t, "crash", dir, step)
		out, err := cmd.CombinedOutput()
		finished := err == nil
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !finished && (!ok || status.Signal() != syscall.SIGKILL) {
			t.Fatalf("step %d: got %v, want SIGKILL or success: %s", step, err, out)
		}
		checkFinalNames(t, dir, step)
		s, err := Open(dir)
		must(t, err)
		if err := both(s); err != nil {
			t.Fatalf("after a crash at step %d: got %v, want no error", step, err)
		}
		checkFinalNames(t, dir, step)
		if left := append(names(t, s, "archives"), names(t, s, "partial")...); len(left) != 0 {
			t.Errorf("after a crash at step %d: got remaining files %v, want none", step, left)
		}
		cleanup(s)
		if finished {
			// Two saves, four pieces, seven steps to commit the model; two, one and seven for the archive; four to unpack.
			if step < 20 {
				t.Fatalf("got %d steps, want at least 20", step)
			}
			return
		}
	}
}

// checkFinalNames reads the files with a final name, without the store.
func checkFinalNames(t *testing.T, dir string, step int) {
	t.Helper()
	models, err := filepath.Glob(filepath.Join(dir, "models", "*.gguf"))
	must(t, err)
	for _, p := range models {
		if data, err := os.ReadFile(p); err != nil || !bytes.Equal(data, content) {
			t.Errorf("step %d: model with its final name: got %d bytes, %v; want the content", step, len(data), err)
		}
	}
	_, archived := packedData(t, "library")
	archives, err := filepath.Glob(filepath.Join(dir, "archives", "*.bin"))
	must(t, err)
	for _, p := range archives {
		if data, err := os.ReadFile(p); err != nil || !bytes.Equal(data, archived) {
			t.Errorf("step %d: archive with its final name: got %d bytes, %v; want the content", step, len(data), err)
		}
	}
	runtimes, err := filepath.Glob(filepath.Join(dir, "runtimes", "[0-9a-f]*"))
	must(t, err)
	r, _ := packedData(t, "library")
	for _, p := range runtimes {
		if err := archive.Check(t.Context(), p, r.Files, true); err != nil {
			t.Errorf("step %d: runtime with its final name: got %v, want no error", step, err)
		}
	}
}

// fullChild mounts a disk of 1 MiB in its own namespace and fills it in two ways: before the first byte, and during the
// transfer.
func fullChild() int {
	if err := syscall.Mount("tmpfs", os.Getenv(childDir), "tmpfs", 0, "size=1m,mode=0700"); err != nil {
		fmt.Println("mount:", err)
		return 2
	}
	s, err := Open(filepath.Join(os.Getenv(childDir), "data"))
	if err != nil {
		fmt.Println(err)
		return 3
	}
	big := model()
	big.Size = 2 << 20
	_, err = s.Accumulate(big, source)
	fmt.Println("first", reasonOf(err))

	small := model()
	small.Size = 700 << 10
	acc, err := s.Accumulate(small, source)
	if err != nil {
		fmt.Println(err)
		return 3
	}
	// Another file uses up the space after the check.
	other := os.WriteFile(filepath.Join(os.Getenv(childDir), "other"), make([]byte, 600<<10), 0o600)
	err = acc.Begin(0, `"one"`)
	for err == nil {
		_, err = acc.Write(make([]byte, 64<<10))
	}
	fmt.Println("midway", reasonOf(err), strings.Contains(err.Error(), os.Getenv(childDir)), other)
	return 0
}

// M8: a full disk is detected before the first byte and during the transfer.
func TestDiskFull(t *testing.T) {
	cmd := inNamespace(child(t, "full", t.TempDir(), 0))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s (this test needs user and mount namespaces)", err, out)
	}
	want := fmt.Sprintf("first %[1]s\nmidway %[1]s false <nil>\n", messages.ReasonNoSpace)
	if string(out) != want {
		t.Fatalf("got %q, want %q", out, want)
	}
}

// unwritableChild prints what the store says of a right model whose record does not fit, and on a read-only file system.
func unwritableChild() int {
	mount := os.Getenv(childDir)
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=1m,mode=0700"); err != nil {
		fmt.Println("mount:", err)
		return 2
	}
	dir := filepath.Join(mount, "data")
	s, err := Open(dir)
	if err == nil {
		err = put(s, model(), content)
	}
	if err == nil { // changes the identity of the file, as another device number does
		err = os.Chmod(s.final(model()), 0o600)
	}
	if err != nil {
		fmt.Println(err)
		return 3
	}
	filler := os.WriteFile(filepath.Join(mount, "filler"), make([]byte, 2<<20), 0o600)
	look := func(when string, s *Store, err error) {
		if err != nil {
			fmt.Println(when, err)
			return
		}
		var reported []messages.Reason
		s.NotRecorded = func(err error) { reported = append(reported, reasonOf(err)) }
		_, err = s.Model(context.Background(), model(), false)
		fmt.Println(when, reasonOf(err), reported)
	}
	look("full", s, nil)
	if !errors.Is(filler, syscall.ENOSPC) {
		fmt.Println("filling the disk:", filler)
	}
	if err := syscall.Mount("", mount, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		fmt.Println("remount:", err)
		return 2
	}
	s, err = Open(dir)
	look("read-only", s, err)
	return 0
}

// M9: a record that cannot be written, on a full disk or a read-only file system, does not make a right model wrong.
func TestRecordDoesNotFit(t *testing.T) {
	out, err := inNamespace(child(t, "unwritable", t.TempDir(), 0)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s (this test needs user and mount namespaces)", err, out)
	}
	want := fmt.Sprintf("full %s [%s]\nread-only %[1]s [%[3]s]\n", messages.ReasonOK, messages.ReasonNoSpace, messages.ReasonTransferFailed)
	if string(out) != want {
		t.Fatalf("got %q, want %q", out, want)
	}
}

// inNamespace lets the child mount file systems.
func inNamespace(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	return cmd
}

// noexecChild prints whether programs can be started from a store, with and without the mount option noexec.
func noexecChild() int {
	for _, flags := range []uintptr{0, syscall.MS_NOEXEC} {
		if err := syscall.Mount("tmpfs", os.Getenv(childDir), "tmpfs", flags, "size=1m,mode=0700"); err != nil {
			fmt.Println("mount:", err)
			return 2
		}
		s, err := Open(filepath.Join(os.Getenv(childDir), "data"))
		if err != nil {
			fmt.Println(err)
			return 3
		}
		fmt.Println(reasonOf(s.Executable()))
	}
	return 0
}

// M10: a data folder that is mounted noexec is detected before a fetch or a start.
func TestNoexec(t *testing.T) {
	out, err := inNamespace(child(t, "noexec", t.TempDir(), 0)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s (this test needs user and mount namespaces)", err, out)
	}
	if want := fmt.Sprintf("%s\n%s\n", messages.ReasonOK, messages.ReasonNotExecutable); string(out) != want {
		t.Fatalf("got %q, want %q", out, want)
	}
}
