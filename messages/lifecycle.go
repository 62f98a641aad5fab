package messages

import "time"

// State is the lifecycle state (A1).
type State string

// The four states; the initial one is StateStopped.
const (
	StateStopped  State = "stopped"
	StateStarting State = "starting"
	StateReady    State = "ready"
	StateDraining State = "draining"
)

// Event moves the lifecycle from one state to another (A1).
type Event string

// The five events of the table; any other is refused with ReasonUnknownEvent.
const (
	EventStart      Event = "start"
	EventHealthOK   Event = "health_ok"
	EventHealthFail Event = "health_fail"
	EventDrain      Event = "drain"
	EventStopped    Event = "stopped"
)

// Launch numbers the attempts to run the runtime. Every report of the process and health actors carries it,
// so that a late report about an earlier launch changes nothing (A9).
type Launch uint64

// Facts are the inputs of availability (A5). Each is reported by one actor and dropped when that actor ends
// or restarts (A9). LastHealth is the time of the last health success, or zero.
type Facts struct {
	Verified     bool
	Ready        bool
	Bound        bool
	Token        bool
	LastHealth   time.Time
	ShuttingDown bool
}

// BackEnd is where the runtime listens (R3). PID is the process that must answer there; a client checks it at each
// connect. Zero means that it is not known yet.
type BackEnd struct {
	Network string // "unix" or "tcp"
	Address string
	PID     int
}

// Model describes the served model by its manifest name; never a path or a digest.
type Model struct {
	Name      string
	Version   string
	Context   int // tokens that one request can use
	Embedding bool
	Own       bool // the user added it (M16)

	// Share is what each of the requests that run at once has of Context for certain. It is Context, unless they share
	// the memory of one context (L15).
	Share     int
	Trained   int          // tokens that it was trained for; 0: not known
	Asked     int          // model.context; 0: automatic
	ContextBy ContextBound // what limits Context
	Infill    Infill

	Vocabulary int    // tokens that it knows; 0: not known
	Control    string // tokens of its vocabulary that control a chat and do not begin with "<" or "[", one a line
}

// ContextBound says what limits the context of a model.
type ContextBound string

// The bounds.
const (
	ContextTrained    ContextBound = "trained"    // what the model was trained for
	ContextMemory     ContextBound = "memory"     // the free memory at the start of the runtime
	ContextConfigured ContextBound = "configured" // model.context
	ContextPublished  ContextBound = "published"  // the model's target in the manifest
	ContextDefault    ContextBound = "default"    // the model does not say what it was trained for
)

// Infill holds the ids of a model's tokens for filling in the middle (L13). Begin is the token that begins every text,
// or -1 if there is none.
type Infill struct {
	Known                         bool
	Begin, Prefix, Suffix, Middle int
}

// ExitReport says how a runtime ended. LastLines are scrubbed (R8).
type ExitReport struct {
	At        time.Time `json:"at"`
	Code      int       `json:"code"`             // exit status; -1 when ended by a signal
	Signal    string    `json:"signal,omitempty"` // such as "killed"
	Reason    Reason    `json:"reason"`
	LastLines []string  `json:"lastLines,omitempty"`
}

// Failures is the history that the restart policy uses (A8).
type Failures struct {
	At       []time.Time
	HeldTill time.Time // zero: no crash loop is held
	// WithRequests are the crashes of the last hour with requests in the runtime, which are not in At (R11).
	WithRequests []time.Time
}

// Snapshot is the immutable state that the lifecycle actor publishes at every change (A2). Gate, front door,
// health, control and resources read it.
type Snapshot struct {
	State     State
	Available bool   // companionAvailable
	Reason    Reason // ReasonOK, or why it is not available
	Since     time.Time
	// AvailableFor is how long Available was true before Since, in all. A period that lasts is not in it: it began at Since.
	AvailableFor time.Duration
	Facts        Facts
	BaseURL      string  // of the front door, when bound
	Launch       Launch  // the current or last launch
	Proven       Launch  // the last launch that was ready; equal to Launch while a runtime is adopted
	BackEnd      BackEnd // zero until the peer process has been checked
	Model        Model
	Restarts     int         // crashes answered by a new launch since the daemon started
	LastExit     *ExitReport // the last exit that was not requested
	RetryAt      time.Time   // when a crashed runtime is started again; zero if none is
	Held         bool        // a crash loop is held (A8)
	Failures     *Failures   // for the next incarnation of the lifecycle actor; nil if there are none
	Wanted       bool        // the user wants the runtime to run
	// Replacing: a ready runtime was retired for another one, which is verified and follows at once (M12). Requests wait for it.
	Replacing bool

	Speculates bool // the runtime uses speculative decoding (R12)
	Sleeps     bool // the model gives its memory back when it is idle (R14)
	Asleep     bool // it has done so, as far as the last probe knows
}

// ToLifecycle is what the lifecycle actor accepts.
type ToLifecycle interface{ toLifecycle() }

// ActorStarted says that an actor starts with empty state: drop every fact that it has reported (A9).
type ActorStarted struct{ Actor Actor }

// ActorEnded says that an actor's Serve has ended: drop every fact that it has reported (A9). The supervisor
// may wait before it restarts the actor. Sent by the supervision tree.
type ActorEnded struct{ Actor Actor }

// ArtifactsVerified says that model and runtime are on disk with the digests of the manifest (M6).
// LastGood marks the pair that became ready last, which the manifest actor has recorded (M13); without
// it, the pair is the one that the manifest wants. Sent by provision.
type ArtifactsVerified struct {
	Model    VerifiedModel
	Runtime  VerifiedRuntime
	LastGood bool
}

// IntegrityLost says that one artifact is missing, wrong or unobtainable (M9, M10, M13). It concerns only
// the pairs that contain the artifact. Sent by provision, and by process when the files that it was
// told to start differ from the verified ones. With a zero digest, the reasons manifest_expired and
// no_such_target withdraw every pair: the manifest allows nothing to be served (M1). Sent by
// manifest.
type IntegrityLost struct {
	Artifact string   // manifest name; empty together with a zero digest: every artifact
	SHA256   [32]byte // of the artifact; zero where the sender does not know it: then the name decides
	Reason   Reason
}

// DoorBound says that the front door is listening (L1). Sent by frontdoor.
type DoorBound struct{ BaseURL string }

// DoorLost says that the front door no longer listens.
type DoorLost struct{ Reason Reason }

// TokenStored says that the loopback token was stored and read back (A4, K7). Sent by custody.
type TokenStored struct{}

// TokenLost says that the loopback token could not be stored, is gone, or cannot be read back. Sent by custody.
type TokenLost struct{ Reason Reason }

// RuntimeStarted says that the child runs; its socket may not exist yet. Sent by process.
type RuntimeStarted struct {
	Launch Launch
	PID    int
	// Model and Runtime have been started. A new incarnation of lifecycle learns from them what it adopts.
	Model, Runtime [32]byte
}

// BackEndUp says that the back end answers and that the peer is our child (R3). Sent by process.
type BackEndUp struct {
	Launch  Launch
	BackEnd BackEnd
	Model   Model
	// Speculates says that the runtime uses speculative decoding (R12), Sleeps that its model sleeps when it is idle
	// (R14).
	Speculates, Sleeps bool
}

// IdentityChanged says that a verified file was replaced or modified (M9, M10): it must be hashed again before a
// start. Sent by process.
type IdentityChanged struct {
	Launch   Launch
	Artifact string
}

// RuntimeExited says that the launch is over: the process ended, or could not be started. Sent by
// process, exactly once per Spawn.
type RuntimeExited struct {
	Launch    Launch
	Requested bool // the exit answers a Kill that came before the runtime had begun to die
	Exit      ExitReport
}

// RuntimeAbsent answers ConfirmProcess and Kill if no runtime runs. Launch is copied from the Kill, and zero for
// ConfirmProcess. Sent by process.
type RuntimeAbsent struct{ Launch Launch }

// HealthSucceeded is one end-to-end success (A4). In StateStarting it includes a generated token.
type HealthSucceeded struct {
	Launch Launch
	At     time.Time
	Asleep bool // the model has given its memory back (R14)
}

// HealthFailed is one failed probe. Hung means that the process lives but does not compute, so it must be
// replaced. Sent by health; process sends it with ReasonProcessExited when the runtime begins to die.
type HealthFailed struct {
	Launch Launch
	Reason Reason
	Hung   bool
}

// SpeculationUnfit says that the launch must not use speculative decoding: it makes answers slower, or a request asks
// for token probabilities, which it does not give (R12). The pair is restarted without it. Sent by frontdoor.
type SpeculationUnfit struct {
	Launch Launch
	Why    string // for the log
}

// MemoryExceeded says that the runtime has been over its memory limit for long enough (P4). Sent by resources,
// repeatedly while that lasts.
type MemoryExceeded struct{ Launch Launch }

// StartRequested asks to run the runtime, and ends a crash-loop hold (A8). The reply is immediate: ReasonOK, or
// why nothing can start yet. In both cases the runtime is wanted from then on.
type StartRequested struct{ Reply chan<- Reason }

// StopRequested asks to drain and stop the runtime. The reply comes when it has ended, or is
// ReasonInvalidTransition if a start is requested before that.
type StopRequested struct{ Reply chan<- Reason }

// RestartRequested asks for a drain, a stop and a start. The reply comes when the start begins or, as for
// StartRequested, if nothing can start. It is ReasonInvalidTransition if a stop is requested before that.
type RestartRequested struct{ Reply chan<- Reason }

// AwaitReady asks for the outcome of a switch to a model that provision is about to offer. The reply is ReasonOK when
// the model is ready, or at once while the runtime is not wanted; otherwise why the model did not become ready. An
// earlier failure of the model no longer counts. Sent by manifest.
type AwaitReady struct {
	Model [32]byte // digest
	Reply chan<- Reason
}

// ShutdownRequested starts the orderly shutdown (X7): stop admitting, drain, stop the runtime, clear the
// token. After the reply the supervision tree may be cancelled.
type ShutdownRequested struct{ Reply chan<- struct{} }

// ForgetPrompts asks to replace a running runtime, whose slots and cache hold the prompts of the user who has signed
// out (R13). Sent by session.
type ForgetPrompts struct{}

// Ping asks for an immediate reply, for the watchdog of the service manager.
type Ping struct{ Reply chan<- struct{} }

func (Ping) toLifecycle()              {}
func (ForgetPrompts) toLifecycle()     {}
func (ActorStarted) toLifecycle()      {}
func (ActorEnded) toLifecycle()        {}
func (ArtifactsVerified) toLifecycle() {}
func (IntegrityLost) toLifecycle()     {}
func (DoorBound) toLifecycle()         {}
func (DoorLost) toLifecycle()          {}
func (TokenStored) toLifecycle()       {}
func (TokenLost) toLifecycle()         {}
func (RuntimeStarted) toLifecycle()    {}
func (BackEndUp) toLifecycle()         {}
func (IdentityChanged) toLifecycle()   {}
func (RuntimeExited) toLifecycle()     {}
func (RuntimeAbsent) toLifecycle()     {}
func (HealthSucceeded) toLifecycle()   {}
func (HealthFailed) toLifecycle()      {}
func (MemoryExceeded) toLifecycle()    {}
func (SpeculationUnfit) toLifecycle()  {}
func (StartRequested) toLifecycle()    {}
func (StopRequested) toLifecycle()     {}
func (RestartRequested) toLifecycle()  {}
func (AwaitReady) toLifecycle()        {}
func (ShutdownRequested) toLifecycle() {}
