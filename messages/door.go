package messages

import "time"

// ToFrontDoor is what the front door actor accepts.
type ToFrontDoor interface{ toFrontDoor() }

// UseLoopbackToken gives the front door the token of this start. Sent by custody, and by nobody
// else.
type UseLoopbackToken struct{ Token Secret }

// DropLoopbackToken takes the token away: every caller is refused from then on.
type DropLoopbackToken struct{}

// UseProbeToken gives the front door the health probe's own token: good for GET /v1/models alone
// (A4). Sent by health.
type UseProbeToken struct{ Token Secret }

// Drain asks to be told when no request is in flight; the gate refuses new ones by the snapshot
// (A7). The reply is the number of requests still running: 0, or what was left at the deadline.
type Drain struct {
	Deadline time.Time
	Reply    chan<- int
}

// ConfirmFrontDoor asks to say again what is bound: the lifecycle actor is new (A9).
type ConfirmFrontDoor struct{}

func (UseLoopbackToken) toFrontDoor()  {}
func (DropLoopbackToken) toFrontDoor() {}
func (UseProbeToken) toFrontDoor()     {}
func (Drain) toFrontDoor()             {}
func (ConfirmFrontDoor) toFrontDoor()  {}

// ToHealth is what the health actor accepts.
type ToHealth interface{ toHealth() }

// DeliverProbeToken asks health to tell the front door its token again: the front door is new.
type DeliverProbeToken struct{}

// ConfirmHealth asks for a probe now: the lifecycle actor is new (A9).
type ConfirmHealth struct{}

func (DeliverProbeToken) toHealth() {}
func (ConfirmHealth) toHealth()     {}

// DoorView is what status and metrics show of the front door: counts, never content (L11).
type DoorView struct {
	BaseURL     string
	InFlight    int
	Queued      int
	MaxInFlight int
	QueueBound  int
	Verdicts    map[Reason]int64
	// EndedRuntime counts the requests that are refused because they ended the runtime (R11).
	EndedRuntime int
	Latency      []LatencyBucket // of admitted requests
	// LatencyCount and LatencySum are of all of them, those over the last bound as well.
	LatencyCount int64
	LatencySum   time.Duration
	// LastActivity is when the runtime last gave a request something of its answer: the idle probe waits on it.
	LastActivity time.Time
}

// LatencyBucket counts the admitted requests that took at most UpTo.
type LatencyBucket struct {
	UpTo  time.Duration
	Count int64
}

// ActorView is one row of status's actors.
type ActorView struct {
	Name      Actor  `json:"name"`
	Restarts  int    `json:"restarts"`
	LastError string `json:"lastError"`
}
