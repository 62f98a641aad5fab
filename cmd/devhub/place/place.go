// Package place is the development hub's directory: the file lock, the ports that the hub keeps across restarts, and the
// private certificate authority. The directory and every key in it belong to one user; nothing is installed into the
// system.
package place

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/gofrs/flock"

	"companion/adapters/privatefs"
)

// HubHost and ArtifactHost are the two names of the loopback address: the manifest and the artifacts
// must come from different hosts (M2).
const (
	HubHost      = "localhost"
	ArtifactHost = "127.0.0.1"
)

// IssuerPath is the path of the authorization server under the hub's base URL (hub.md).
const IssuerPath = "/api/v1/auth/native"

// Place is an opened hub directory.
type Place struct {
	Dir   string // absolute
	ports ports
}

type ports struct {
	Hub       int `json:"hub"`
	Artifacts int `json:"artifacts"`
}

// Open opens the hub directory. In a new one it creates an authority and reserves two ports.
func Open(dir string) (*Place, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("finding the hub directory: %w", err)
	}
	p := &Place{Dir: abs}
	if err := p.prepareDir(); err != nil {
		return nil, fmt.Errorf("preparing the hub directory: %w", err)
	}
	unlock, err := p.Lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := p.loadPorts(); err != nil {
		return nil, err
	}
	return p, p.ensureAuthority()
}

// prepareDir makes the directory private. It closes an empty directory with the usual mode to other users, and does not
// change one with other content.
func (p *Place) prepareDir() error {
	entries, err := os.ReadDir(p.Dir)
	if err == nil && len(entries) == 0 {
		if err := os.Chmod(p.Dir, 0o700); err != nil {
			return err
		}
	}
	return privatefs.EnsureDir(p.Dir)
}

// Lock excludes all other processes that change the directory, until the returned function is called.
func (p *Place) Lock() (unlock func(), err error) {
	lock := flock.New(p.Path("lock"), flock.SetPermissions(0o600))
	if err := lock.Lock(); err != nil {
		return nil, fmt.Errorf("locking the hub directory: %w", err)
	}
	return func() { _ = lock.Unlock() }, nil
}

// ErrNoHub says that a directory holds no hub.
var ErrNoHub = errors.New("there is no hub in this directory")

// OpenExisting opens a hub directory that publish or serve has created. It creates nothing.
func OpenExisting(dir string) (*Place, error) {
	if _, err := os.Stat(filepath.Join(dir, "ports.json")); err != nil {
		return nil, fmt.Errorf("%s: %w; `devhub publish` or `devhub serve` makes one", dir, ErrNoHub)
	}
	return Open(dir)
}

// LockServing excludes a second server of the directory, until the returned function is called. A second one would take
// new ports and break the configurations that name the first.
func (p *Place) LockServing() (unlock func(), err error) {
	lock := flock.New(p.Path("serving"), flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("locking the hub directory: %w", err)
	}
	if !locked {
		return nil, fmt.Errorf("another devhub serves %s", p.Dir)
	}
	return func() { _ = lock.Unlock() }, nil
}

// Path joins names below the directory.
func (p *Place) Path(names ...string) string {
	return filepath.Join(append([]string{p.Dir}, names...)...)
}

// HubURL is the hub's base, without a slash at its end.
func (p *Place) HubURL() string { return origin(HubHost, p.ports.Hub) }

// ArtifactURL is the base of the artifact host.
func (p *Place) ArtifactURL() string { return origin(ArtifactHost, p.ports.Artifacts) }

// Issuer is the authorization server's identifier (RFC 8414).
func (p *Place) Issuer() string { return p.HubURL() + IssuerPath }

// CAFile is the certificate of the private authority.
func (p *Place) CAFile() string { return p.Path("ca.pem") }

// RootFile is the TUF root that a client pins.
func (p *Place) RootFile() string { return p.Path("manifest", "1.root.json") }

// HubPort and ArtifactPort are the stored ports.
func (p *Place) HubPort() int      { return p.ports.Hub }
func (p *Place) ArtifactPort() int { return p.ports.Artifacts }

// KeepPorts stores the ports that a server has bound, for the next start and for publish.
func (p *Place) KeepPorts(hub, artifacts int) error {
	p.ports = ports{Hub: hub, Artifacts: artifacts}
	data, err := json.Marshal(p.ports)
	if err != nil {
		return fmt.Errorf("encoding the hub's ports: %w", err)
	}
	return privatefs.WriteFile(p.Path("ports.json"), data)
}

func (p *Place) loadPorts() error {
	data, err := os.ReadFile(p.Path("ports.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return p.reservePorts()
	}
	if err != nil {
		return fmt.Errorf("reading the hub's ports: %w", err)
	}
	if err := json.Unmarshal(data, &p.ports); err != nil {
		return fmt.Errorf("reading the hub's ports: %w", err)
	}
	return nil
}

// reservePorts picks two free ports, so that artifacts that are published before the first start have stable
// URLs. If another program takes a port, the server picks a new one and signs the URLs again.
func (p *Place) reservePorts() error {
	var got [2]int
	for i := range got {
		l, err := net.Listen("tcp", net.JoinHostPort(ArtifactHost, "0"))
		if err != nil {
			return fmt.Errorf("reserving a port: %w", err)
		}
		defer l.Close()
		got[i] = l.Addr().(*net.TCPAddr).Port
	}
	return p.KeepPorts(got[0], got[1])
}

func origin(host string, port int) string {
	return "https://" + net.JoinHostPort(host, strconv.Itoa(port))
}
