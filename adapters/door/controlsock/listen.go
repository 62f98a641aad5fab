package controlsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/net/netutil"

	"companion/adapters/lowlatency"
	"companion/adapters/privatefs"
)

const (
	// maxPath is the length of sun_path on the system with the shortest, without the terminating zero.
	maxPath = 103
	// maxConns bounds the number of simultaneous commands and watchers.
	maxConns = 64
	// answerWithin is how long the daemon behind an existing socket has to accept a connection.
	answerWithin = time.Second
)

// Listen creates the private folder of path, and listens on path. It removes a socket of the same user on which no
// process listens; if one listens, the error is ErrInUse. It refuses any other file at path, and a folder that is not
// private. refused is called for every connection that was closed because its other end does not belong to the same
// user.
func Listen(path string, refused func(err error)) (net.Listener, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("listening on the control socket: the path %s has %d bytes, at most %d are possible",
			path, len(path), maxPath)
	}
	if err := privatefs.EnsureDir(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("preparing the folder of the control socket: %w", err)
	}
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("clearing the place of the control socket: %w", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listening on the control socket: %w", err)
	}
	// Until here only the folder keeps other users out: the socket's mode comes from the umask.
	if err := os.Chmod(path, 0o600); err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("setting the mode of the control socket: %w", err)
	}
	return netutil.LimitListener(&sameUser{Listener: ln, uid: ownUID(), refused: refused}, maxConns), nil
}

// sameUser accepts connections of one user only. It closes others without an answer.
type sameUser struct {
	net.Listener
	uid     uint32
	refused func(err error)
}

func (l *sameUser) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if err := checkPeer(conn, l.uid); err != nil {
			_ = conn.Close()
			l.refused(err)
			continue
		}
		return lowlatency.Conn(conn), nil
	}
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := checkSocket(path, info); err != nil {
		return err
	}
	conn, err := net.DialTimeout("unix", path, answerWithin)
	if err == nil {
		_ = conn.Close()
		return ErrInUse
	}
	if queueFull(err) { // the daemon is suspended, but alive
		return ErrInUse
	}
	if !nobodyListens(err) {
		return fmt.Errorf("checking whether a process listens: %w", err)
	}
	return os.Remove(path)
}
