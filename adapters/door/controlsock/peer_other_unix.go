//go:build unix && !linux && !darwin

package controlsock

import (
	"errors"
	"net"
)

// peerOf fails: there is no implementation for this system, so every connection is refused.
func peerOf(net.Conn) (uint32, error) { return 0, errors.ErrUnsupported }

// peerPID fails, see peerOf.
func peerPID(net.Conn) (int, error) { return 0, errors.ErrUnsupported }
