package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"
)

// longestRunDir leaves room for the names of the sockets: the companion refuses a path of more than 103 bytes, and its
// longest name takes 48.
const longestRunDir = 55

// keychainService is the demonstration's service name in the kernel keyring, different for each clone.
func (d *demo) keychainService() string {
	digest := sha256.Sum256([]byte(d.dir))
	return "companion-demo-" + hex.EncodeToString(digest[:4])
}

// demo is one running demonstration.
type demo struct {
	root     string // the repository
	dir      string // .cache/demo in it
	run      string // XDG_RUNTIME_DIR
	lock     *flock.Flock
	children []*child
	died     chan error // of a child that ended by itself
	facts    facts
	shown    progress
}

// facts are results of earlier stages that later ones need.
type facts struct {
	model, runtime, runtimeVersion string
	caFile                         string
}

// prepare removes the demonstration's folder and creates it again.
func prepare() (*demo, error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("finding the repository: %w", err)
	}
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		return nil, errors.New("the demonstration starts in the repository's own folder")
	}
	d := &demo{root: root, dir: filepath.Join(root, ".cache", "demo"), died: make(chan error, 2)}
	if err := os.MkdirAll(filepath.Dir(d.dir), 0o755); err != nil {
		return nil, fmt.Errorf("making the demonstration's folder: %w", err)
	}
	d.lock = flock.New(d.dir + ".lock")
	if held, err := d.lock.TryLock(); err != nil || !held {
		return nil, errors.New("another demonstration runs in this repository")
	}
	if err := removeTree(d.dir); err != nil {
		return nil, fmt.Errorf("emptying the demonstration's folder: %w", err)
	}
	for _, name := range []string{"config/companion", "data", "state", "cache", "notes"} {
		if err := os.MkdirAll(filepath.Join(d.dir, name), 0o700); err != nil {
			return nil, fmt.Errorf("making the demonstration's folder: %w", err)
		}
	}
	return d, d.makeRunDir()
}

// makeRunDir puts the sockets under the demonstration's folder. If its path is too long for a socket, it uses a private
// temporary folder that stop removes.
func (d *demo) makeRunDir() error {
	d.run = filepath.Join(d.dir, "run")
	if len(d.run) > longestRunDir {
		var err error
		d.run, err = os.MkdirTemp("", "companion-demo-")
		return err
	}
	return os.Mkdir(d.run, 0o700)
}

// removeTree also removes the files that the companion made read-only (M12).
func removeTree(dir string) error {
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.RemoveAll(dir)
}

// xdg are the variables that put all of the companion's folders into the demonstration's folder.
func (d *demo) xdg() []string {
	return []string{
		"XDG_CONFIG_HOME=" + filepath.Join(d.dir, "config"),
		"XDG_DATA_HOME=" + filepath.Join(d.dir, "data"),
		"XDG_STATE_HOME=" + filepath.Join(d.dir, "state"),
		"XDG_CACHE_HOME=" + filepath.Join(d.dir, "cache"),
		"XDG_RUNTIME_DIR=" + d.run,
	}
}

func (d *demo) binary(name string) string { return filepath.Join(d.dir, "bin", name) }

// invite prints how to use the running companion from another terminal.
func (d *demo) invite() {
	script := filepath.Join(d.dir, "env.sh")
	lines := make([]string, 0, 6)
	for _, v := range d.xdg() {
		name, value, _ := strings.Cut(v, "=")
		lines = append(lines, fmt.Sprintf("export %s='%s'", name, value))
	}
	lines = append(lines, fmt.Sprintf("export PATH='%s':\"$PATH\"", filepath.Join(d.dir, "bin")), "")
	if err := os.WriteFile(script, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		fmt.Fprintln(os.Stderr, "demo: writing env.sh:", err)
		return
	}
	fmt.Printf(`
Use it from another terminal:

  . %s
  companion status
  companion chat "Why is the sky blue?"
  eval "$(companion env)"
  curl "$OPENAI_BASE_URL/models" -H "Authorization: Bearer $OPENAI_API_KEY"

Ctrl-C stops it all.
`, script)
}

// stop ends the running programs, the companion before its hub, and removes the session from the keyring.
func (d *demo) stop() error {
	var failed error
	if len(d.children) > 1 {
		d.signOut()
	}
	for i := len(d.children) - 1; i >= 0; i-- {
		failed = errors.Join(failed, d.children[i].stop())
	}
	if filepath.Dir(d.run) != d.dir {
		failed = errors.Join(failed, os.RemoveAll(d.run))
	}
	return errors.Join(failed, d.lock.Unlock())
}
