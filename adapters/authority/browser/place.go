package browser

import "strings"

// Place says where the command line runs, as far as that decides how a browser reaches its loopback address.
type Place string

// Places. A browser can be opened from PlaceDesktop and PlaceWSL only.
const (
	PlaceDesktop  Place = "desktop"  // a graphical session on this machine
	PlaceSSH      Place = "ssh"      // a remote shell: the user's browser is on another machine
	PlaceWSL      Place = "wsl"      // Windows Subsystem for Linux: the user's browser runs in Windows
	PlaceHeadless Place = "headless" // a Unix system without a display
)

// Where decides from the environment and the kernel's release, which only Linux needs. BROWSER wins over everything else:
// editors that forward ports (VS Code, Codespaces) set it in the shells that they open on a remote machine.
func Where(goos string, getenv func(string) string, release string) Place {
	unix := goos != "windows" && goos != "darwin"
	switch {
	case unix && getenv("BROWSER") != "":
		return PlaceDesktop
	case getenv("SSH_CONNECTION") != "" || getenv("SSH_TTY") != "":
		return PlaceSSH
	case !unix:
		return PlaceDesktop
	case getenv("WSL_DISTRO_NAME") != "" || strings.Contains(strings.ToLower(release), "microsoft"):
		return PlaceWSL
	case getenv("DISPLAY") == "" && getenv("WAYLAND_DISPLAY") == "":
		return PlaceHeadless
	}
	return PlaceDesktop
}

// CanOpen reports whether Open has a chance.
func (p Place) CanOpen() bool { return p == PlaceDesktop || p == PlaceWSL }
