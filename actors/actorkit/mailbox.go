// Package actorkit is the kit for actors: mailbox messages (Tell, Ask), latest-value cells (Watch),
// queued sends (Outbox) and background goroutines of an actor (Group).
//
// A mailbox is a bounded channel that the composition root owns, so that it outlives an actor's restarts.
// Tell sends, or gives up when its context ends. Ask sends a message with a reply channel of capacity one and
// waits for the reply. A Watch holds the latest value that one actor publishes: readers get it without
// waiting for the actor, or wait for a change; a slow reader skips values and always gets the newest. An
// Outbox queues messages, so that a loop never blocks on a receiver. Nothing here blocks without a context.
package actorkit

import (
	"context"
	"fmt"
	"sync"
)

// Tell sends m to box, or returns the cause of ctx's end.
func Tell[M any](ctx context.Context, box chan<- M, m M) error {
	select {
	case box <- m:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("telling %T: %w", m, context.Cause(ctx))
	}
}

// Ask sends the message that build makes with a new reply channel, and waits for the reply.
func Ask[M, R any](ctx context.Context, box chan<- M, build func(reply chan<- R) M) (R, error) {
	reply := make(chan R, 1)
	var none R
	if err := Tell(ctx, box, build(reply)); err != nil {
		return none, err
	}
	select {
	case r := <-reply:
		return r, nil
	case <-ctx.Done():
		return none, fmt.Errorf("waiting for %T: %w", none, context.Cause(ctx))
	}
}

// Watch is a latest-value cell: one writer, many readers. The zero Watch is not usable; see
// NewWatch.
type Watch[T any] struct {
	mu      sync.RWMutex
	value   T
	changed chan struct{}
}

// NewWatch returns a cell whose value is first.
func NewWatch[T any](first T) *Watch[T] {
	return &Watch[T]{value: first, changed: make(chan struct{})}
}

// Set publishes v. The value must not be changed afterwards.
func (w *Watch[T]) Set(v T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.value = v
	close(w.changed)
	w.changed = make(chan struct{})
}

// Get returns the latest value.
func (w *Watch[T]) Get() T {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.value
}

// Next returns the latest value and a channel that is closed when a newer one is published.
func (w *Watch[T]) Next() (T, <-chan struct{}) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.value, w.changed
}
