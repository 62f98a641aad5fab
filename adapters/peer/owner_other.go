//go:build !linux

package peer

import (
	"errors"
	"net"
)

// Owner returns ErrUnsupported: there is no implementation for this system.
func Owner(net.Conn) (int, error) { return 0, errors.ErrUnsupported }
