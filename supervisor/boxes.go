package supervisor

import (
	"companion/actors/actorkit"
	"companion/messages"
)

// boxSize bounds each mailbox. Actors handle messages at once, so a full mailbox means that its actor is
// restarting; further messages wait at their senders, with a context.
const boxSize = 64

// boxes are all mailboxes and watches. They outlive the restarts of the actors.
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

	snapshot        *actorkit.Watch[messages.Snapshot]
	keychainChanged *actorkit.Watch[int] // counts the keychain's signals
	sessionView     *actorkit.Watch[messages.SessionView]
	manifestView    *actorkit.Watch[messages.ManifestView]
	processView     *actorkit.Watch[messages.ProcessView]
	transfers       *actorkit.Watch[[]messages.Transfer]
	observation     *actorkit.Watch[messages.Observation]
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

		snapshot:        actorkit.NewWatch(messages.Snapshot{State: messages.StateStopped, Reason: messages.ReasonNotReady, Wanted: true}),
		keychainChanged: actorkit.NewWatch(0),
		sessionView:     actorkit.NewWatch(messages.SessionView{State: messages.SessionUnknown}),
		manifestView:    actorkit.NewWatch(messages.ManifestView{}),
		processView:     actorkit.NewWatch(messages.ProcessView{}),
		transfers:       actorkit.NewWatch[[]messages.Transfer](nil),
		observation:     actorkit.NewWatch(messages.Observation{}),
	}
}
