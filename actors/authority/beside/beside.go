// Package beside holds the two helpers that let an authority actor's loop always answer: a Group for
// the slow work that runs beside the loop, and an Outbox for messages that their receiver has not
// taken yet.
package beside

import "sync"

// Group runs work beside one Serve. A panic in it is handed to the loop, so that it ends the actor,
// where the supervisor contains it, and not the program.
type Group struct {
	running sync.WaitGroup
	panics  chan any
}

// NewGroup returns an empty group.
func NewGroup() *Group { return &Group{panics: make(chan any, 1)} }

// Go runs f, which must end with its actor's context.
func (g *Group) Go(f func()) {
	g.running.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				select {
				case g.panics <- p:
				default: // one is enough to end the actor
				}
			}
		}()
		f()
	})
}

// Panicked gives the value of a panic in some work; the loop panics with it.
func (g *Group) Panicked() <-chan any { return g.panics }

// Wait returns when all work has ended.
func (g *Group) Wait() { g.running.Wait() }

// Outbox holds messages for one receiver, in order, until the loop's select has sent them. The loop
// selects on Out with Head, and calls Sent afterwards.
type Outbox[M any] struct {
	Box   chan<- M
	queue []M
}

// Put adds a message.
func (o *Outbox[M]) Put(m M) { o.queue = append(o.queue, m) }

// Out is the channel to send on; nil, which no select takes, when nothing waits.
func (o *Outbox[M]) Out() chan<- M {
	if len(o.queue) == 0 {
		return nil
	}
	return o.Box
}

// Head is the message to send next.
func (o *Outbox[M]) Head() M {
	var none M
	if len(o.queue) == 0 {
		return none
	}
	return o.queue[0]
}

// Sent takes the head away.
func (o *Outbox[M]) Sent() { o.queue = o.queue[1:] }
