//go:build !linux

package supervisor

// dropProgramPages does nothing: other systems trim idle programs by themselves.
func dropProgramPages() error { return nil }
