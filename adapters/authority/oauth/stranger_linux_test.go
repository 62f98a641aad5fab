package oauth

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"companion/adapters/peer"
)

// O2: another user of this machine, who has read the start page's address from the browser's arguments, gets neither the
// authorization URL nor an end of the attempt with the right state. The user's own browser then finishes it.
func TestOtherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can connect as another user")
	}
	h, c := newHub(t)
	_, shown, err := signIn(t, h, c, func(a *Attempt) string {
		// As another user, who then is not the one who began the attempt: this test runs as root.
		for _, path := range []string{a.startPath, a.callbackPath + "?code=c&state=" + a.want.state + "&iss=" + a.want.issuer} {
			answer, err := getAs(65534, a.host, path)
			if err != nil {
				t.Fatal(err)
			}
			head, body, _ := strings.Cut(answer, "\r\n\r\n")
			if !strings.HasPrefix(head, "HTTP/1.1 403 ") || strings.Contains(head, "Location") || body != foreignPage {
				t.Errorf("%s as another user: got %s and %q; want 403, no Location, and the page for another user", path, head, body)
			}
		}
		_, _, body := h.browse(a.Page().URL)
		return body
	})
	if err != nil || shown != signedInPage {
		t.Errorf("the user's own browser: got %v, page %q; want the signed-in page", err, shown)
	}
}

// getAs sends a GET request from a socket of another user, and returns the answer.
func getAs(uid int, host, path string) (string, error) {
	type result struct {
		answer string
		err    error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			done <- result{err: errno}
			return
		}
		answer, err := get(host, path)
		done <- result{answer, err}
	}()
	r := <-done
	return r.answer, r.err
}

func get(host, path string) (string, error) {
	var port int
	if _, err := fmt.Sscanf(host, "127.0.0.1:%d", &port); err != nil {
		return "", err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	conn := os.NewFile(uintptr(fd), "socket")
	defer conn.Close()
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	return string(answer), err
}

// O2: root and the user are let in, also where the system does not tell the user; another user and a socket of no user are not.
func TestStrange(t *testing.T) {
	for _, row := range []struct {
		uid  int
		err  error
		want bool
	}{
		{1000, nil, false}, {0, nil, false}, {1001, nil, true}, {65534, nil, true},
		{0, peer.ErrNoOwner, true}, {0, errors.ErrUnsupported, false}, {0, errors.New("other"), true},
	} {
		if got := strange(row.uid, row.err, 1000); got != row.want {
			t.Errorf("user %d, error %v, for user 1000: got strange %v, want %v", row.uid, row.err, got, row.want)
		}
	}
}
