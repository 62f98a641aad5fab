package main

import (
	"sync"
)

// hold is a state of the terminal that must not outlive the command: an alternate screen, raw input.
type hold struct {
	enter  func()
	leave  func()
	redraw func() // after a resume; nil: nothing
}

// heldTerminal is the hold that is in force. A process has one terminal, and so at most one.
var heldTerminal struct {
	sync.Mutex
	leave func() // nil: none in force
}

// restoreTerminal leaves the hold in force, for an end without return: os.Exit at a second signal.
func restoreTerminal() {
	heldTerminal.Lock()
	defer heldTerminal.Unlock()
	if heldTerminal.leave != nil {
		heldTerminal.leave()
		heldTerminal.leave = nil
	}
}

// whileHeld runs draw if a hold is in force: nothing may be drawn on a terminal that was given back.
func whileHeld(draw func() error) error {
	heldTerminal.Lock()
	defer heldTerminal.Unlock()
	if heldTerminal.leave == nil {
		return nil
	}
	return draw()
}

// holdTerminal enters h and returns what leaves it. Meanwhile a suspend (Ctrl-Z) leaves it, stops the process and
// enters it again at the resume, and a quit (Ctrl-\) leaves it and ends the process.
func (a *app) holdTerminal(h hold) (release func(), err error) {
	enter := func() {
		heldTerminal.Lock()
		defer heldTerminal.Unlock()
		h.enter()
		heldTerminal.leave = h.leave
	}
	enter()
	stop := onSuspend(restoreTerminal, func() {
		enter()
		if h.redraw != nil {
			h.redraw()
		}
	})
	var once sync.Once
	return func() {
		once.Do(func() {
			stop()
			restoreTerminal()
		})
	}, nil
}
