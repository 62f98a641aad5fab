//go:build unix && !darwin

package browser

import (
	"os/exec"
	"strings"
	"syscall"
)

// commands lists the openers in the order in which they are tried. Of BROWSER, which may be a list of command lines, only a
// plain program is taken here; xdg-open understands the rest. Under WSL, wslview (of wslu) opens the browser of Windows.
func commands(getenv func(string) string) [][]string {
	list := [][]string{{"xdg-open"}, {"wslview"}}
	if getenv("WSL_DISTRO_NAME") != "" {
		list[0], list[1] = list[1], list[0]
	}
	if named := getenv("BROWSER"); named != "" && !strings.ContainsAny(named, " %:\t") {
		list = append([][]string{{named}}, list...)
	}
	return list
}

// detach puts the opener in a session of its own, away from the terminal and its signals.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
