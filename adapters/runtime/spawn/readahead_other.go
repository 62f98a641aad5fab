//go:build !linux

package spawn

import (
	"context"

	"companion/messages"
)

// ReadAhead does nothing: the runtime reads the model's file when it loads it.
func ReadAhead(context.Context, messages.VerifiedModel, int64) {}
