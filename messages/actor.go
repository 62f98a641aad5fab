package messages

// Actor names an actor in logs, in status and in the messages about it.
type Actor string

// The actors. The first path element is the wing.
const (
	ActorLifecycle Actor = "lifecycle"
	ActorJournal   Actor = "journal"

	ActorCustody  Actor = "authority/custody"
	ActorSession  Actor = "authority/session"
	ActorManifest Actor = "authority/manifest"

	ActorFrontDoor Actor = "door/frontdoor"
	ActorHealth    Actor = "door/health"
	ActorControl   Actor = "door/control"

	ActorProvision Actor = "runtime/provision"
	ActorProcess   Actor = "runtime/process"
	ActorResources Actor = "runtime/resources"
)
