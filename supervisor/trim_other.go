//go:build !linux

package supervisor

// dropProgramPages does nothing: elsewhere the system trims idle programs by itself.
func dropProgramPages() error { return nil }
