//go:build !linux && !darwin && !windows

package browser

func command(start string) (string, []string) { return "xdg-open", []string{start} }
