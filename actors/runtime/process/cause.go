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
	return says(exit, loaderMessages)
}

// projectorMessages are what the runtime prints when the projector does not fit its model (M17).
var projectorMessages = []string{"you may be using wrong mmproj", "failed to load multimodal model"}

// memoryMessages are what the runtime and its libraries print when the system refuses them memory.
var memoryMessages = []string{
	"std::bad_alloc",
	"Cannot allocate memory",
	"cannot allocate memory",
	"out of memory",
	"unable to allocate",
	"failed to allocate",
}

// memoryRefused reports whether the runtime ended because it reached the memory limit that the daemon set for it. Either
// it said so, or the kernel did, or it ended before it was ready with most of its limit in use: a refused allocation ends
// some runtimes without a word. most is the largest use that was seen while it started.
func memoryRefused(exit messages.ExitReport, limit, most int64) bool {
	return limit > 0 && exit.Code != 0 && (says(exit, memoryMessages) || most >= limit/5*4)
}

func says(exit messages.ExitReport, any []string) bool {
	for _, line := range exit.LastLines {
		for _, message := range any {
			if strings.Contains(line, message) {
				return true
			}
		}
	}
	return false
}
