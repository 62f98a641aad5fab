package enrich

import "golang.org/x/sys/unix"

// setLockCommand: locks of the open file, which also keep two runs in one process apart (fcntl_locking(2)).
const setLockCommand = unix.F_OFD_SETLK
