//go:build unix && !linux && !darwin

package peer

import "errors"

// processAt fails: there is no implementation for this system, so every check fails.
func processAt(int) (int, error) { return 0, errors.ErrUnsupported }
