package signin

import (
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"companion/e2e/harness"
)

// O2, T13: another user of this machine opens the start page, whose address it has read from the arguments of the browser's
// process. The running daemon tells it nothing about the attempt, which the user's own browser then finishes.
func TestOtherUserOpensStartPage(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can connect as another user")
	}
	c := harness.NewHub(t).Companion("")
	answer := ""
	c.Before = func(page string) error {
		at, err := url.Parse(page)
		if err != nil {
			return err
		}
		script := `exec 3<>"/dev/tcp/$1/$2"; printf 'GET %s HTTP/1.1\r\nHost: %s:%s\r\n\r\n' "$3" "$1" "$2" >&3; cat <&3`
		otherUser := exec.Command("bash", "-c", script, "bash", at.Hostname(), at.Port(), at.Path)
		otherUser.Dir = "/"
		otherUser.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := otherUser.CombinedOutput()
		answer = string(out)
		return err
	}
	c.Start()
	c.SignIn()
	if !strings.HasPrefix(answer, "HTTP/1.1 403 ") || strings.Contains(answer, "Location") || !strings.Contains(answer, "another user of this computer") {
		t.Errorf("another user: got %s; want 403 without Location", answer)
	}
}
