//go:build windows

package archive

import (
	"io/fs"
	"os"
)

// On Windows the access list of the profile folder excludes other users. Modes have little effect, and a folder can be neither
// read-only nor synced. This is tested under Wine, not on real machines.

func owned(fs.FileInfo) bool { return true }

func sameMode(fs.FileInfo, fs.FileMode) bool { return true }

func settleFolder(*os.File) error { return nil }
