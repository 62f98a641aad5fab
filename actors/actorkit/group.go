package actorkit

import "sync"

// Group runs the background goroutines of one Serve. A panic in one of them is passed to the actor's loop:
// it ends the actor, which its supervisor restarts, not the program.
type Group struct {
	running sync.WaitGroup
	panics  chan any
}

// NewGroup returns an empty group.
func NewGroup() *Group { return &Group{panics: make(chan any, 1)} }

// Go runs f in a goroutine. f must return when the actor's context ends.
func (g *Group) Go(f func()) {
	g.running.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				select {
				case g.panics <- p:
				default: // the first panic already ends the actor
				}
			}
		}()
		f()
	})
}

// Panicked delivers the value of the first panic. The loop must re-panic with it.
func (g *Group) Panicked() <-chan any { return g.panics }

// Wait blocks until all goroutines have returned.
func (g *Group) Wait() { g.running.Wait() }
