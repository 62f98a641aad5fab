//go:build !linux

package supervisor

// dropProgramPages does nothing: other systems reclaim the pages of idle programs themselves.
func dropProgramPages() error { return nil }
