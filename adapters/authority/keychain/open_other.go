//go:build !linux && !darwin && !windows

package keychain

import (
	"fmt"
	"runtime"
)

func open(string) (backEnd, error) {
	return nil, fmt.Errorf("no keychain back end for %s", runtime.GOOS)
}
