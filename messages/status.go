package messages

import "time"

// Status is the document of `companion status --json` (cli.md); scripts rely on every key. The control actor
// assembles it from the views that the other actors publish.
type Status struct {
	Version            string          `json:"version"`
	PID                int             `json:"pid"`
	StartedAt          time.Time       `json:"startedAt"`
	CompanionAvailable bool            `json:"companionAvailable"`
	Lifecycle          State           `json:"lifecycle"`
	Reason             Reason          `json:"reason"`
	Since              time.Time       `json:"since"`
	AvailableSeconds   float64         `json:"availableSeconds,omitempty"` // since the start of the daemon
	Facts              StatusFacts     `json:"facts"`
	FrontDoor          StatusFrontDoor `json:"frontDoor"`
	Model              StatusModel     `json:"model"`
	Runtime            StatusRuntime   `json:"runtime"`
	Session            StatusSession   `json:"session"`
	Manifest           StatusManifest  `json:"manifest"`
	Transfers          []Transfer      `json:"transfers"`
	Actors             []ActorView     `json:"actors"`
}

// StatusFacts are the facts of availability (A5).
type StatusFacts struct {
	Verified     bool       `json:"verified"`
	Ready        bool       `json:"ready"`
	Bound        bool       `json:"bound"`
	Token        bool       `json:"token"`
	HealthRecent bool       `json:"healthRecent"`
	LastHealth   *time.Time `json:"lastHealth"`
}

// StatusFrontDoor is the part about the front door. Latency is a cumulative histogram with upper bounds in
// milliseconds; LatencyCount and LatencySumMilliseconds include all requests.
type StatusFrontDoor struct {
	BaseURL     string           `json:"baseURL"`
	InFlight    int              `json:"inFlight"`
	Queued      int              `json:"queued"`
	MaxInFlight int              `json:"maxInFlight"`
	QueueBound  int              `json:"queueBound"`
	Verdicts    map[Reason]int64 `json:"verdicts"`
	// Dropped counts the requests by the field that was left out of them (L12).
	Dropped map[string]int64 `json:"dropped,omitempty"`
	// EndedRuntime counts the requests that are refused because they ended the runtime (R11).
	EndedRuntime int `json:"endedRuntime,omitempty"`
	// Applications are the application tokens that are in use (L14).
	Applications []ApplicationView `json:"applications,omitempty"`

	Latency []StatusLatency `json:"latency,omitempty"`

	LatencyCount           int64   `json:"latencyCount,omitempty"`
	LatencySumMilliseconds float64 `json:"latencySumMilliseconds,omitempty"`

	// FirstToken is the histogram of the time from a request's head to the first event of its stream.
	FirstToken                []StatusLatency `json:"firstToken,omitempty"`
	FirstTokenCount           int64           `json:"firstTokenCount,omitempty"`
	FirstTokenSumMilliseconds float64         `json:"firstTokenSumMilliseconds,omitempty"`

	// PromptTokens and CompletionTokens are those of complete answers, GenerationSeconds is the time that the latter took, and
	// Progress counts events of streams as they come and tokens of other answers at their end.
	PromptTokens      int64   `json:"promptTokens,omitempty"`
	CompletionTokens  int64   `json:"completionTokens,omitempty"`
	GenerationSeconds float64 `json:"generationSeconds,omitempty"`
	Progress          int64   `json:"progress,omitempty"`
}

// StatusLatency is one bucket of the latency histogram.
type StatusLatency struct {
	UpToMilliseconds float64 `json:"upToMilliseconds"`
	Count            int64   `json:"count"`
}

// StatusModel is the served or wanted model. Grace says that the manifest has expired and the model still
// serves (M1). Yours says that the user added it (M16).
type StatusModel struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	Verified bool   `json:"verified"`
	Grace    bool   `json:"grace"`
	Yours    bool   `json:"yours"`

	Context        int          `json:"context,omitempty"`        // tokens that one request can use
	ContextShare   int          `json:"contextShare,omitempty"`   // tokens that each of several requests has for certain, if that is less
	ContextTrained int          `json:"contextTrained,omitempty"` // tokens that the model was trained for
	ContextAsked   int          `json:"contextAsked,omitempty"`   // model.context
	ContextBy      ContextBound `json:"contextBy,omitempty"`

	ControlTokens []string `json:"controlTokens,omitempty"` // see Model.Control
}

// StatusRuntime is the runtime process. RetryAt and Held say what happens after a crash (A8).
type StatusRuntime struct {
	Name          string      `json:"name"`
	Version       string      `json:"version"`
	PID           int         `json:"pid"`
	Restarts      int         `json:"restarts"`
	BackEnd       string      `json:"backEnd"`
	Pinned        bool        `json:"pinned"`
	Yours         bool        `json:"yours"` // the user added it (M16)
	Sandbox       Sandbox     `json:"sandbox"`
	ResidentBytes int64       `json:"residentBytes"`
	ExpectedBytes int64       `json:"expectedBytes,omitempty"` // of weights, full contexts and full prompt cache (R5)
	CPUPercent    float64     `json:"cpuPercent"`
	GPUBytes      int64       `json:"gpuBytes"`
	LastExit      *ExitReport `json:"lastExit"`
	RetryAt       *time.Time  `json:"retryAt,omitempty"`
	Held          bool        `json:"held,omitempty"`
	Speculates    bool        `json:"speculates,omitempty"` // it uses speculative decoding (R12)
	Asleep        bool        `json:"asleep,omitempty"`     // the model has given its memory back (R14)
}

// StatusSession is the sign-in. User is a display name, empty when signed out. Trouble is the reason of the last failure of
// refresh, sign-out or storing, until that succeeds. Unrevoked counts the ended sessions that the hub has not revoked yet.
type StatusSession struct {
	State         SessionState `json:"state"`
	User          string       `json:"user"`
	Reason        Reason       `json:"reason,omitempty"`
	AccessExpires *time.Time   `json:"accessExpires,omitempty"`
	Trouble       Reason       `json:"trouble,omitempty"`
	TroubleAt     *time.Time   `json:"troubleAt,omitempty"`
	Unrevoked     int          `json:"unrevoked,omitempty"`
}

// StatusManifest is the signed manifest. Added is the number of artifacts that the user added, and AddedReason why these
// cannot be used (M16).
type StatusManifest struct {
	Version   int64      `json:"version"`
	Expires   *time.Time `json:"expires"`
	CheckedAt *time.Time `json:"checkedAt"`
	Reason    Reason     `json:"reason,omitempty"`
	RetryAt   *time.Time `json:"retryAt,omitempty"` // the next refresh after a failed one
	Added     int        `json:"added"`

	AddedReason Reason `json:"addedReason,omitempty"`
}
