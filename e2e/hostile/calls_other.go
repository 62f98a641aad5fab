//go:build linux && !amd64

package main

// foreignCalls attempts nothing: this processor's kernel offers a 64-bit program no second table.
func foreignCalls() []attempt { return nil }
