package actorkit

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
