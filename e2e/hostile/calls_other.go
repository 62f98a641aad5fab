//go:build linux && !amd64

package main

// foreignCalls has nothing to try: there is no second table that this processor's kernel offers a
// 64-bit program.
func foreignCalls() []attempt { return nil }
