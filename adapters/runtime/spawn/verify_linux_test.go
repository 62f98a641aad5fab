package spawn_test

import (
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"companion/adapters/runtime/spawn"
	"companion/adapters/runtime/spawn/spawntest"
	"companion/messages"
)

// refusal checks that Spawn fails as given, with no path or digest in its text, and leaves nothing.
func refusal(t *testing.T, spec spawn.Spec, reason messages.Reason, artifact string) error {
	t.Helper()
	started, err := spawn.Spawn(spec)
	if err == nil {
		started.Handle.Kill(t.Context(), 0)
		t.Fatal("got a started runtime, want an error")
	}
	var typed *spawn.Error
	if !errors.As(err, &typed) || typed.Reason != reason || typed.Artifact != artifact {
		t.Errorf("got %#v, want %s about %q", err, reason, artifact)
	}
	if strings.ContainsAny(err.Error(), "/\\") {
		t.Errorf("got the error %v, want one without a path", err)
	}
	if entries, _ := os.ReadDir(spec.RunDir); len(entries) > 0 {
		t.Errorf("got %v left, want nothing", entries)
	}
	return err
}

// M9, T6: the model that starts is the verified file: not another file on the same path, not one that was changed in
// place, not a link to it.
func TestModelIsTheVerifiedFile(t *testing.T) {
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		change  func(path string)
		changed bool // ErrIdentityChanged: hash again
	}{
		"removed":  {func(path string) { must(os.Remove(path)) }, true},
		"replaced": {func(path string) { must(os.Rename(path, path+".old"), os.WriteFile(path, []byte("{}"), 0o600)) }, true},
		"written over": {func(path string) {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			must(err)
			_, err = f.WriteString("[")
			must(err, f.Close())
		}, true},
		"longer":     {func(path string) { must(os.Truncate(path, 1000)) }, true},
		"a link":     {func(path string) { must(os.Rename(path, path+".old"), os.Symlink(path+".old", path)) }, true},
		"a folder":   {func(path string) { must(os.Remove(path), os.Mkdir(path, 0o700)) }, true},
		"a pipe":     {func(path string) { must(os.Remove(path), syscall.Mkfifo(path, 0o600)) }, true},
		"other mode": {func(path string) { must(os.Chmod(path, 0o400)) }, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			spec := spawntest.Spec(t, map[string]any{"serve": true})
			test.change(spec.Model.Path)
			err := refusal(t, spec, messages.ReasonInvalidModelPath, spawntest.Name)
			if errors.Is(err, spawn.ErrIdentityChanged) != test.changed {
				t.Errorf("got %v, want ErrIdentityChanged: %v", err, test.changed)
			}
		})
	}
	t.Run("not absolute", func(t *testing.T) {
		spec := spawntest.Spec(t, nil)
		spec.Model.Path = "model.gguf"
		refusal(t, spec, messages.ReasonInvalidModelPath, spawntest.Name)
	})
	t.Run("swapped after the start", func(t *testing.T) {
		// The descriptor counts: a file that replaces the path between check and start is not read.
		spec := spawntest.Spec(t, map[string]any{"say": []string{"the verified one"}, "exitAfter": 1})
		started := start(t, spec)
		must(os.Rename(spec.Model.Path, spec.Model.Path+".old"), os.WriteFile(spec.Model.Path, []byte(`{"say":["another"]}`), 0o600))
		if exit := <-started.Exit; strings.Join(exit.LastLines, "") != "the verified one" {
			t.Errorf("got %q, want the verified model", exit.LastLines)
		}
	})
}

// tree returns a runtime with an executable, a library in a folder, and a link.
func tree(t *testing.T) messages.VerifiedRuntime {
	t.Helper()
	hostile := spawntest.Runtime(t)
	data, err := os.ReadFile(filepath.Join(hostile.Dir, hostile.Executable))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := errors.Join(
		os.Mkdir(filepath.Join(dir, "bin"), 0o755), os.WriteFile(filepath.Join(dir, "bin", "server"), data, 0o755),
		os.Mkdir(filepath.Join(dir, "lib"), 0o755), os.WriteFile(filepath.Join(dir, "lib", "libx.so.1"), []byte("library"), 0o644),
		os.Symlink("libx.so.1", filepath.Join(dir, "lib", "libx.so")),
	); err != nil {
		t.Fatal(err)
	}
	return messages.VerifiedRuntime{
		Name: "tree", Version: "1", Dir: dir, Executable: "bin/server", Pinned: true,
		Files: []messages.ArchiveFile{
			{Path: "bin/server", SHA256: sha256.Sum256(data), Size: int64(len(data)), Executable: true},
			{Path: "lib/libx.so.1", SHA256: sha256.Sum256([]byte("library")), Size: 7},
			{Path: "lib/libx.so", LinkTarget: "libx.so.1"},
		},
	}
}

// M10, T6, T7: before each spawn the runtime's folder holds exactly the files that the manifest lists, and no other user
// may write them.
func TestRuntimeIsTheVerifiedTree(t *testing.T) {
	tests := map[string]struct {
		change func(dir string) error
		reason messages.Reason
	}{
		"library changed": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "lib/libx.so.1"), []byte("Library"), 0o644)
		}, messages.ReasonDigestMismatch},
		"library longer": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "lib/libx.so.1"), []byte("library!"), 0o644)
		}, messages.ReasonDigestMismatch},
		"executable changed": {func(dir string) error {
			f, err := os.OpenFile(filepath.Join(dir, "bin/server"), os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte{0}, 5000)
			return errors.Join(err, f.Close())
		}, messages.ReasonDigestMismatch},
		"library missing": {func(dir string) error { return os.Remove(filepath.Join(dir, "lib/libx.so.1")) }, messages.ReasonBinaryUntrusted},
		"extra library": {func(dir string) error {
			hwcaps := filepath.Join(dir, "lib/glibc-hwcaps/x86-64-v2")
			return errors.Join(os.MkdirAll(hwcaps, 0o755), os.WriteFile(filepath.Join(hwcaps, "libx.so.1"), nil, 0o644))
		}, messages.ReasonBinaryUntrusted},
		"link elsewhere": {func(dir string) error {
			link := filepath.Join(dir, "lib/libx.so")
			return errors.Join(os.Remove(link), os.Symlink("/tmp/evil.so", link))
		}, messages.ReasonBinaryUntrusted},
		"link instead of a file": {func(dir string) error {
			library := filepath.Join(dir, "lib/libx.so.1")
			return errors.Join(os.Rename(library, dir+"-moved"), os.Symlink(dir+"-moved", library))
		}, messages.ReasonBinaryUntrusted},
		"library writable by others": {func(dir string) error { return os.Chmod(filepath.Join(dir, "lib/libx.so.1"), 0o666) }, messages.ReasonBinaryUntrusted},
		"executable writable by the group": {func(dir string) error {
			return os.Chmod(filepath.Join(dir, "bin/server"), 0o775)
		}, messages.ReasonBinaryUntrusted},
		"folder writable by others": {func(dir string) error { return os.Chmod(filepath.Join(dir, "lib"), 0o777) }, messages.ReasonBinaryUntrusted},
		"executable missing":        {func(dir string) error { return os.Remove(filepath.Join(dir, "bin/server")) }, messages.ReasonInvalidBinaryPath},
		"executable is a link": {func(dir string) error {
			server := filepath.Join(dir, "bin/server")
			return errors.Join(os.Rename(server, server+".old"), os.Symlink("server.old", server))
		}, messages.ReasonInvalidBinaryPath},
		"executable is a pipe": {func(dir string) error {
			server := filepath.Join(dir, "bin/server")
			return errors.Join(os.Remove(server), syscall.Mkfifo(server, 0o755))
		}, messages.ReasonInvalidBinaryPath},
	}
	if os.Geteuid() == 0 {
		tests["library of another user"] = struct {
			change func(dir string) error
			reason messages.Reason
		}{func(dir string) error { return os.Chown(filepath.Join(dir, "lib/libx.so.1"), 12345, 12345) }, messages.ReasonBinaryUntrusted}
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			spec := spawntest.Spec(t, nil)
			spec.Runtime = tree(t)
			if err := test.change(spec.Runtime.Dir); err != nil {
				t.Fatal(err)
			}
			if err := refusal(t, spec, test.reason, "tree"); !errors.Is(err, spawn.ErrIdentityChanged) {
				t.Errorf("got %v, want ErrIdentityChanged", err)
			}
		})
	}
	t.Run("unchanged", func(t *testing.T) {
		spec := spawntest.Spec(t, map[string]any{"serve": true})
		spec.Runtime = tree(t)
		awaitHealthy(t, start(t, spec))
	})
}

// M9, M10: a check that cannot be made, here for want of a descriptor, is a failed start, and not a verdict on the files.
func TestCheckThatCannotBeMade(t *testing.T) {
	spec := spawntest.Spec(t, nil)
	r := tree(t)
	executable, err := os.Open(filepath.Join(r.Dir, r.Executable))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = executable.Close() }()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	_, ofModel := spawn.OpenModel(spec.Model)
	ofRuntime := spawn.VerifyRuntime(r, executable)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"model": ofModel, "runtime": ofRuntime} {
		var typed *spawn.Error
		if !errors.As(err, &typed) || typed.Reason != messages.ReasonSpawnFailed || typed.Artifact != "" || !errors.Is(err, syscall.EMFILE) {
			t.Errorf("%s: got %+v, want spawn_failed because of EMFILE, about no artifact", what, err)
		}
	}
	if err := spawn.VerifyRuntime(r, executable); err != nil {
		t.Errorf("with descriptors: got %v, want no error", err)
	}
}

// M10: an executable path must stay inside its folder, the folder must be absolute, and the manifest's list must contain
// the executable. Nothing runs without a sandbox mode.
func TestMalformedSpecs(t *testing.T) {
	tests := map[string]struct {
		change func(*spawn.Spec)
		reason messages.Reason
	}{
		"relative folder":    {func(s *spawn.Spec) { s.Runtime.Dir = "runtime" }, messages.ReasonInvalidBinaryPath},
		"no folder":          {func(s *spawn.Spec) { s.Runtime.Dir = "" }, messages.ReasonInvalidBinaryPath},
		"leaves its folder":  {func(s *spawn.Spec) { s.Runtime.Executable = "../bin/sh" }, messages.ReasonInvalidBinaryPath},
		"absolute name":      {func(s *spawn.Spec) { s.Runtime.Executable = "/bin/sh" }, messages.ReasonInvalidBinaryPath},
		"no executable":      {func(s *spawn.Spec) { s.Runtime.Executable = "" }, messages.ReasonInvalidBinaryPath},
		"listed as a link":   {func(s *spawn.Spec) { s.Runtime.Files[0].LinkTarget = "server" }, messages.ReasonBinaryUntrusted},
		"not listed":         {func(s *spawn.Spec) { s.Runtime.Files = s.Runtime.Files[1:] }, messages.ReasonBinaryUntrusted},
		"listed twice":       {func(s *spawn.Spec) { s.Runtime.Files = append(s.Runtime.Files, s.Runtime.Files[1]) }, messages.ReasonBinaryUntrusted},
		"listed, not there":  {func(s *spawn.Spec) { s.Runtime.Files = append(s.Runtime.Files, messages.ArchiveFile{Path: "x"}) }, messages.ReasonBinaryUntrusted},
		"nothing listed":     {func(s *spawn.Spec) { s.Runtime.Files = nil }, messages.ReasonBinaryUntrusted},
		"folder not there":   {func(s *spawn.Spec) { s.Runtime.Dir = "/nowhere" }, messages.ReasonInvalidBinaryPath},
		"no mode of sandbox": {func(s *spawn.Spec) { s.Sandbox = "" }, messages.ReasonSpawnFailed},
		"sandbox off":        {func(s *spawn.Spec) { s.Sandbox = "off" }, messages.ReasonSpawnFailed},
		"no place to run":    {func(s *spawn.Spec) { s.RunDir = "/nowhere" }, messages.ReasonSpawnFailed},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			spec := spawntest.Spec(t, nil)
			spec.Runtime = tree(t)
			test.change(&spec)
			artifact := "tree"
			if test.reason == messages.ReasonSpawnFailed {
				artifact = ""
			}
			refusal(t, spec, test.reason, artifact)
		})
	}
	t.Run("no place for the record", func(t *testing.T) {
		spec := spawntest.Spec(t, nil)
		spec.RecordPath = filepath.Join(spec.RunDir, "no", "runtime.json")
		_, err := spawn.Spawn(spec)
		var typed *spawn.Error
		if !errors.As(err, &typed) || typed.Reason != messages.ReasonSpawnFailed {
			t.Errorf("got %v, want spawn_failed", err)
		}
		if entries, _ := os.ReadDir(spec.RunDir); len(entries) > 0 {
			t.Errorf("got %v left, want nothing", entries)
		}
	})
}

// M10: a binary that the configuration allows unpinned is not hashed, but no other user may write it either.
func TestUnpinned(t *testing.T) {
	spec := spawntest.Spec(t, map[string]any{"serve": true})
	spec.Runtime.Pinned, spec.Runtime.Files = false, nil
	awaitHealthy(t, start(t, spec))

	spec = spawntest.Spec(t, nil)
	spec.Runtime = tree(t)
	spec.Runtime.Pinned, spec.Runtime.Files = false, nil
	if err := os.Chmod(filepath.Join(spec.Runtime.Dir, spec.Runtime.Executable), 0o777); err != nil {
		t.Fatal(err)
	}
	refusal(t, spec, messages.ReasonBinaryUntrusted, "tree")
}
