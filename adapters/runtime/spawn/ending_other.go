//go:build !linux

package spawn

import (
	"context"
	"errors"
)

// Ending fails: this system reports only the exit itself.
func Ending(context.Context, int) error {
	return errors.New("this system tells the exit only")
}

// IsEnding reports that it is not known.
func IsEnding(int) bool { return false }
