//go:build !linux && !darwin && !windows

package keychain

import (
	"fmt"
	"runtime"
)

// MayAsk says whether a quiet call can raise a dialog.
const MayAsk = false

func open(string) (backEnd, error) {
	return nil, fmt.Errorf("no keychain back end for %s", runtime.GOOS)
}
