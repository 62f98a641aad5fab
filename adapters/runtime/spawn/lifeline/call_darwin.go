package lifeline

import "golang.org/x/sys/unix"

const sigaction = unix.SYS_SIGACTION
