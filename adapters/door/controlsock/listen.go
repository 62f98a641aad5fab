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
	// maxPath is what sun_path holds on the smallest system, less its final zero byte.
	maxPath = 103
	// maxConns bounds how many commands and watchers there are at once.
	maxConns = 64
	// answerWithin is how long somebody who owns an existing socket has to accept.
	answerWithin = time.Second
)

// Listen makes the folder of path private if it is not there, and listens on path. A socket that an
// earlier daemon left is removed when it is ours and nobody answers on it; if somebody does, the
// error is ErrInUse. Anything else under that name, or a folder that is not private, is refused.
// Refused is told of every connection that was closed because its other end is not the same user.
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
	// Until here the folder alone kept others out: the socket came with the mode of the umask.
	if err := os.Chmod(path, 0o600); err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("closing the control socket to others: %w", err)
	}
	return netutil.LimitListener(&sameUser{Listener: ln, uid: ownUID(), refused: refused}, maxConns), nil
}

// sameUser accepts connections of one user only; another's are closed without an answer.
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
	if !nobodyListens(err) {
		return fmt.Errorf("asking whether somebody listens: %w", err)
	}
	return os.Remove(path)
}
