package spawn

import "os"

// Windows cannot let the runtime open a file by a descriptor. The open files keep the paths from being deleted, and the folders
// belong to the user.

func modelPath(file *os.File) string { return file.Name() }

func furtherPath(_ int, file *os.File) string { return file.Name() }

// link gives a file a second name: a symbolic link needs a privilege. Untested on real machines.
func link(path, name string) error { return os.Link(path, name) }

func hide(string) error { return nil }
