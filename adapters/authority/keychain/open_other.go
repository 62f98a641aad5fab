//go:build !linux && !darwin && !windows

package keychain

import (
	"fmt"
	"runtime"
)

// AsksByItself says whether the back end raises dialogs that the caller did not allow.
const AsksByItself = false

func open(string) (backEnd, error) {
	return nil, fmt.Errorf("no keychain back end for %s", runtime.GOOS)
}
