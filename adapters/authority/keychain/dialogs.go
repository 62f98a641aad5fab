package keychain

import (
	"context"
	"sync/atomic"
)

type dialogs struct{}

// Ask returns a context under which all calls together may raise one dialog, such as an unlock dialog. Callers use it only for
// an action that the user has just requested. Under any other context, a call that needs a dialog fails with keychain_locked.
func Ask(ctx context.Context) context.Context {
	left := new(atomic.Int32)
	left.Store(1)
	return context.WithValue(ctx, dialogs{}, left)
}

// MayAsk reports whether a call under ctx may still raise a dialog.
func MayAsk(ctx context.Context) bool {
	left, ok := ctx.Value(dialogs{}).(*atomic.Int32)
	return ok && left.Load() > 0
}

// takeDialog uses up the dialog of ctx and reports whether there was one.
func takeDialog(ctx context.Context) bool {
	left, ok := ctx.Value(dialogs{}).(*atomic.Int32)
	return ok && left.CompareAndSwap(1, 0)
}

type brief struct{}

// Brief returns a context under which a call fails with keychain_timeout if the service does not react at once. A service that
// reacts has time until the deadline of the call.
func Brief(ctx context.Context) context.Context { return context.WithValue(ctx, brief{}, true) }
