package fsm

import (
	"context"
	"errors"

	looplab "github.com/looplab/fsm"

	"companion/messages"
)

// Lifecycle is the state machine of A1. Only the lifecycle actor uses it; it is not safe for concurrent use.
type Lifecycle struct{ machine *looplab.FSM }

// NewLifecycle returns a machine in StateStopped.
func NewLifecycle() *Lifecycle {
	return &Lifecycle{looplab.NewFSM(string(messages.StateStopped), looplab.Events{
		transition(messages.EventStart, messages.StateStopped, messages.StateStarting),
		transition(messages.EventHealthOK, messages.StateStarting, messages.StateReady),
		transition(messages.EventHealthFail, messages.StateStarting, messages.StateStopped),
		transition(messages.EventDrain, messages.StateReady, messages.StateDraining),
		transition(messages.EventStopped, messages.StateDraining, messages.StateStopped),
	}, nil)}
}

func transition(event messages.Event, from, to messages.State) looplab.EventDesc {
	return looplab.EventDesc{Name: string(event), Src: []string{string(from)}, Dst: string(to)}
}

// State returns the current state.
func (l *Lifecycle) State() messages.State { return messages.State(l.machine.Current()) }

// Apply moves the machine and returns ReasonOK. On any other result the state is unchanged:
// ReasonInvalidTransition if the current state does not allow the event, ReasonUnknownEvent if no state does.
func (l *Lifecycle) Apply(event messages.Event) messages.Reason {
	// looplab/fsm stays in transition forever if its context ends midway (its issue 115), so it gets a
	// context that never ends.
	err := l.machine.Event(context.Background(), string(event))
	var unknown looplab.UnknownEventError
	switch {
	case err == nil:
		return messages.ReasonOK
	case errors.As(err, &unknown):
		return messages.ReasonUnknownEvent
	default:
		return messages.ReasonInvalidTransition
	}
}
