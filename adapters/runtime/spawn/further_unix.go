//go:build unix

package spawn

import "os"

// link names a descriptor of the runtime.
func link(descriptor, name string) error { return os.Symlink(descriptor, name) }

// hide removes the name of a file that the runtime gets by descriptor, so that no other program can find it.
func hide(path string) error { return os.Remove(path) }
