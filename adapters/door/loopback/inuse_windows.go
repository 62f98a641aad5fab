package loopback

import "golang.org/x/sys/windows"

// WSAEACCES is the error where the other program has the port exclusively; this package always asks for that.
const errInUse = windows.WSAEADDRINUSE
