// Package peer tells which process is at the other end of a local connection: by peer credentials of a Unix
// socket (SO_PEERCRED, LOCAL_PEERPID), and on Windows by the owner of a TCP port. On Linux it also tells which
// user a loopback connection comes from.
//
// The runtime wing checks with it that the process behind a new back-end socket is the one it started, and the
// door wing does so at each connection (R3): a socket in a folder of the user can be replaced by any program of
// the same user. The redirect listener answers only the user's own browser (O2). The package belongs to no wing, holds no secret and imports nothing of this module.
package peer

import "errors"

// ErrOtherProcess marks the error of Check for a connection whose other end is not the expected process.
var ErrOtherProcess = errors.New("another process answers")

// ErrNoOwner marks the error of Owner for a connection whose other end is no socket of this machine.
var ErrNoOwner = errors.New("the other end is no socket of this machine")
