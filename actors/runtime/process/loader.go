package process

import (
	"strings"

	"companion/messages"
)

// loaderMessages are the messages of the dynamic loaders of glibc, musl and macOS when a library is missing or older
// than the program needs.
var loaderMessages = []string{
	"error while loading shared libraries:",
	"Error loading shared library ",
	"Error relocating ",
	"Library not loaded:",
	"' not found (required by ", // version `GLIBC_2.38' not found
}

// libraryMissing reports whether the runtime ended because the dynamic loader could not start it. The exit status
// of the loaders is 127 or 1.
func libraryMissing(exit messages.ExitReport) bool {
	if exit.Code != 127 && exit.Code != 1 {
		return false
	}
	for _, line := range exit.LastLines {
		for _, message := range loaderMessages {
			if strings.Contains(line, message) {
				return true
			}
		}
	}
	return false
}
