package supervisor

import (
	"companion/actors/mailbox"
	"companion/messages"
)

// boxSize bounds each mailbox. Actors answer at once, so more than a few waiting messages mean that
// an actor is restarting; what does not fit then waits at the sender, with a context.
const boxSize = 64

// boxes are the mailboxes and watches of the house. They outlive every restart of an actor.
type boxes struct {
	lifecycle   chan messages.ToLifecycle
	custody     chan messages.ToCustody
	loopback    chan messages.LoopbackRequest
	accessToken chan messages.AccessTokenRequest
	session     chan messages.SessionCommand
	manifest    chan messages.ManifestCommand
	frontDoor   chan messages.ToFrontDoor
	health      chan messages.ToHealth
	provision   chan messages.ToProvision
	process     chan messages.ToProcess

	snapshot     *mailbox.Watch[messages.Snapshot]
	sessionView  *mailbox.Watch[messages.SessionView]
	manifestView *mailbox.Watch[messages.ManifestView]
	processView  *mailbox.Watch[messages.ProcessView]
	transfers    *mailbox.Watch[[]messages.Transfer]
	observation  *mailbox.Watch[messages.Observation]
}

func newBoxes() boxes {
	return boxes{
		lifecycle:   make(chan messages.ToLifecycle, boxSize),
		custody:     make(chan messages.ToCustody, boxSize),
		loopback:    make(chan messages.LoopbackRequest, boxSize),
		accessToken: make(chan messages.AccessTokenRequest, boxSize),
		session:     make(chan messages.SessionCommand, boxSize),
		manifest:    make(chan messages.ManifestCommand, boxSize),
		frontDoor:   make(chan messages.ToFrontDoor, boxSize),
		health:      make(chan messages.ToHealth, boxSize),
		provision:   make(chan messages.ToProvision, boxSize),
		process:     make(chan messages.ToProcess, boxSize),

		snapshot:     mailbox.NewWatch(messages.Snapshot{State: messages.StateStopped, Reason: messages.ReasonNotReady, Wanted: true}),
		sessionView:  mailbox.NewWatch(messages.SessionView{State: messages.SessionUnknown}),
		manifestView: mailbox.NewWatch(messages.ManifestView{}),
		processView:  mailbox.NewWatch(messages.ProcessView{}),
		transfers:    mailbox.NewWatch[[]messages.Transfer](nil),
		observation:  mailbox.NewWatch(messages.Observation{}),
	}
}
