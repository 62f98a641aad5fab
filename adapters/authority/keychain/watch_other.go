//go:build !linux

package keychain

import "context"

// Watch waits for the end of ctx: the keychains of this platform have no signals.
func Watch(ctx context.Context, _ string, _ func()) { <-ctx.Done() }
