package config

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"

	"github.com/adrg/xdg"

	"companion/adapters/privatefs"
)

// Places are the program's files and folders (cli.md, "Places"). The folders are private to the user; see Create.
type Places struct {
	Config string // the configuration file

	Data     string // folder
	Models   string // folder
	Runtimes string // folder
	Trust    string // folder: the TUF client's metadata

	State   string // folder
	Log     string // file
	Lock    string // file
	Reclaim string // file: the identity of the running runtime (R7)
	Tokens  string // file: digests of the application tokens (L14)
	Options string // file: the optional features of the runtimes that were asked (R12)
	Claims  string // file: the notes that enrich runs work on (E7)

	Runtime       string // folder: sockets and the endpoint file
	ControlSocket string
	Endpoint      string // file (L2)
	BackEnd       string // folder with one subfolder for each start
}

// Locate returns the places for this platform and environment. XDG variables can move all of them. If HOME is not set, it uses
// the home folder of the user database. If there is none, the error suggests XDG variables.
func Locate() (Places, error) {
	if err := ensureHome(); err != nil {
		return Places{}, err
	}
	xdg.Reload()
	p := Places{
		Config: filepath.Join(xdg.ConfigHome, "companion", "config.toml"),
		Data:   filepath.Join(xdg.DataHome, "companion"),
		State:  filepath.Join(xdg.StateHome, "companion"),
	}
	p.Runtime = filepath.Join(p.State, "run")
	if hasRuntimeDir() {
		p.Runtime = filepath.Join(xdg.RuntimeDir, "companion")
	}
	p.Models = filepath.Join(p.Data, "models")
	p.Runtimes = filepath.Join(p.Data, "runtimes")
	p.Trust = filepath.Join(p.Data, "trust")
	p.Log = filepath.Join(p.State, "companion.log")
	p.Lock = filepath.Join(p.State, "lock")
	p.Reclaim = filepath.Join(p.State, "runtime.json")
	p.Tokens = filepath.Join(p.State, "tokens.json")
	p.Options = filepath.Join(p.State, "runtime-options.json")
	p.Claims = filepath.Join(p.State, "enrich.claims")
	p.ControlSocket = filepath.Join(p.Runtime, "control.sock")
	p.Endpoint = filepath.Join(p.Runtime, "endpoint.json")
	p.BackEnd = filepath.Join(p.Runtime, "backend")
	return p, nil
}

// ensureHome sets HOME if it is needed and missing: the xdg library would otherwise use the root folder.
func ensureHome() error {
	if home, err := os.UserHomeDir(); err == nil && filepath.IsAbs(home) {
		return nil
	}
	complete := true
	for _, name := range []string{"XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"} {
		complete = complete && filepath.IsAbs(os.Getenv(name))
	}
	if complete {
		return nil
	}
	me, err := user.Current()
	if err != nil || !filepath.IsAbs(me.HomeDir) {
		return errors.New("there is no home folder: HOME is not set, and the user database names none; " +
			"set HOME, or XDG_CONFIG_HOME, XDG_DATA_HOME and XDG_STATE_HOME")
	}
	return os.Setenv("HOME", me.HomeDir)
}

// hasRuntimeDir reports whether the system provides a run-time folder. On a machine without a login manager the library's
// default does not exist and the user cannot create it.
func hasRuntimeDir() bool {
	if os.Getenv("XDG_RUNTIME_DIR") != "" {
		return true
	}
	info, err := os.Stat(xdg.RuntimeDir)
	return err == nil && info.IsDir()
}

// longestSocket is the longest path of a Unix socket, in bytes, that every system accepts (sun_path of macOS).
const longestSocket = 103

// Create makes the private folders. It refuses folders that other users can enter (T17), and a run-time folder whose
// path is too long for a socket.
func (p Places) Create() error {
	// The back end's socket has the longest path, because each start of the runtime makes a subfolder.
	if socket := filepath.Join(p.BackEnd, "backend-1234567890", "llama.sock"); len(socket) > longestSocket {
		return fmt.Errorf("the run-time folder %s is %d bytes too long for the sockets in it: name a shorter one in XDG_RUNTIME_DIR",
			p.Runtime, len(socket)-longestSocket)
	}
	for _, dir := range []string{p.Data, p.State, p.Runtime, p.Models, p.Runtimes, p.Trust, p.BackEnd} {
		if err := privatefs.EnsureDir(dir); err != nil {
			return err
		}
	}
	return nil
}
