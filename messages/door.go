package messages

import (
	"net/netip"
	"time"
)

// ToFrontDoor is what the front door actor accepts.
type ToFrontDoor interface{ toFrontDoor() }

// UseLoopbackToken gives the front door the loopback token of this start. Only custody sends it.
type UseLoopbackToken struct{ Token Secret }

// DropLoopbackToken removes the token: every caller is refused from then on.
type DropLoopbackToken struct{}

// UseProbeToken gives the front door the token of the health probe, which is valid only for GET /v1/models
// (A4). Sent by health.
type UseProbeToken struct{ Token Secret }

// Drain asks for a reply when no request is in flight. The gate refuses new requests, by the snapshot (A7).
// The reply is the number of requests that still run: 0, or those left at the deadline.
type Drain struct {
	Deadline time.Time
	Reply    chan<- int
}

// ConfirmFrontDoor asks the front door to report again what is bound: lifecycle has restarted (A9).
type ConfirmFrontDoor struct{}

// ReloadApplicationTokens asks the front door to read the file of application tokens again (L14). The reply is
// ReasonOK once the new list holds, or ReasonInternalError when the file cannot be used; then no application token is
// valid. Sent by control.
type ReloadApplicationTokens struct{ Reply chan<- Reason }

// ConfirmConnection asks whether the front door has accepted the connection from Client to Server. So a program proves that
// the listener at the other end of its connection is this daemon's. Sent by control.
type ConfirmConnection struct {
	Client, Server netip.AddrPort
	Reply          chan<- bool
}

func (ConfirmConnection) toFrontDoor()       {}
func (UseLoopbackToken) toFrontDoor()        {}
func (DropLoopbackToken) toFrontDoor()       {}
func (UseProbeToken) toFrontDoor()           {}
func (Drain) toFrontDoor()                   {}
func (ConfirmFrontDoor) toFrontDoor()        {}
func (ReloadApplicationTokens) toFrontDoor() {}

// ToHealth is what the health actor accepts.
type ToHealth interface{ toHealth() }

// DeliverProbeToken asks health to send its token again to a front door that has restarted.
type DeliverProbeToken struct{}

// ConfirmHealth asks for a probe now: lifecycle has restarted, or the front door has (A9).
type ConfirmHealth struct{}

func (DeliverProbeToken) toHealth() {}
func (ConfirmHealth) toHealth()     {}

// DoorView is the part of status and metrics about the front door: counts, never content (L11).
type DoorView struct {
	BaseURL     string
	InFlight    int
	Queued      int
	MaxInFlight int
	QueueBound  int
	Verdicts    map[Reason]int64
	Dropped     map[string]int64 // requests by the field that was left out of them (L12)
	// EndedRuntime counts the requests that are refused because they ended the runtime (R11).
	EndedRuntime int
	Applications []ApplicationView
	Latency      []LatencyBucket // of admitted requests
	// LatencyCount and LatencySum include the requests over the last bound.
	LatencyCount int64
	LatencySum   time.Duration
	// First is the histogram of the time from a request's head to the first event of its stream.
	First      []LatencyBucket
	FirstCount int64
	FirstSum   time.Duration
	// PromptTokens and CompletionTokens are those of complete answers, and Generating is the time that the latter took.
	PromptTokens, CompletionTokens int64
	Generating                     time.Duration
	// Progress counts the events of streams as they come, and the tokens of other answers at their end.
	Progress int64
	// LastActivity is when the runtime last sent a part of a response. The idle probe depends on it.
	LastActivity time.Time
}

// ApplicationView is one application token (L14) in status. The counts are since the start of the daemon.
type ApplicationView struct {
	Name          string     `json:"name"`
	Expires       *time.Time `json:"expires,omitempty"`
	RatePerMinute int        `json:"ratePerMinute"`
	Requests      int64      `json:"requests"` // that the guard admitted
	LastRequest   *time.Time `json:"lastRequest,omitempty"`
}

// Speed is what the runtime reports of one answer: its tokens, the time that they took, and its draft tokens (R12).
type Speed struct {
	Tokens, Drafted, Accepted int
	Millis                    float64
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
