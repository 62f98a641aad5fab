// Package config reads the companion's configuration (contract X5): one TOML file in the platform's configuration folder, which
// environment variables and flags override. It also locates the program's files and folders (cli.md, "Places").
//
// One table (keys.go) defines the name, default, accepted values and purpose of every key. Loading, validation, `config show`
// and the commented file all use that table, so that they cannot disagree. A configuration contains no secret: it names
// the environment variables that hold the keys of other lanes.
package config

import "time"

// Settings are the effective, validated values. The zero value is not usable; see Default and Load.
type Settings struct {
	Hub       Hub
	Manifest  Manifest
	Keychain  Keychain
	Model     Model
	Runtime   Runtime
	FrontDoor FrontDoor
	Health    Health
	Lanes     Lanes
	Disk      Disk
	Log       Log
}

// Hub is the first-party hub and the sign-in (O1–O8).
type Hub struct {
	URL              string // https origin without a path; empty: no hub
	IssuerURL        string // the OAuth issuer; empty: URL + /api/v1/auth/native
	CAFile           string // additional root certificates; empty: only the system's
	ClientID         string // empty: register (RFC 7591)
	FirstParty       bool   // the RFC 9207 `iss` is always required in the callback (O4)
	ForeignEndpoints bool   // endpoints may have another origin than the issuer (O1)
	RedirectAddress  string // "127.0.0.1" or "[::1]" (O2)
	SignInTimeout    time.Duration
}

// Configured reports whether there is a hub. Without one, only what the user added is served (M16).
func (h Hub) Configured() bool { return h.URL != "" }

// Issuer returns the OAuth issuer identifier of the hub (hub.md), which the hub's metadata must equal byte for byte.
func (h Hub) Issuer() string {
	if h.IssuerURL != "" {
		return h.IssuerURL
	}
	return h.URL + "/api/v1/auth/native"
}

// Manifest is the signed manifest (M1, M4).
type Manifest struct {
	RootFile     string // the pinned TUF root
	Grace        time.Duration
	PrivateHosts []string
}

// Keychain names the store of secrets (K2).
type Keychain struct {
	Backend string // auto, secret-service, kernel-keyring, macos, windows
	Service string
}

// Model is the served model.
type Model struct {
	Name    string // empty: the manifest's default
	Context int    // tokens; 0: what the model was trained for, as far as memory allows
}

// CacheAuto is the PromptCache that the process actor chooses at each start of the runtime.
const CacheAuto = -1

// Runtime configures the llama-server process and its limits. Zero means no limit (P3).
type Runtime struct {
	Threads             int           // zero: the physical cores that the process may use
	Speculation         string        // auto or off
	PromptCache         int64         // bytes; CacheAuto: a share of the free memory
	IdleUnload          time.Duration // zero: never
	Priority            string        // normal or background
	MaxInFlight         int
	QueueBound          int
	QueueTimeout        time.Duration
	MemoryLimit         int64   // bytes
	GPUMemoryLimit      int64   // bytes
	CPULimit            float64 // percent, (0,100]
	Sandbox             string  // require or prefer
	AllowUnpinnedBinary string  // absolute path, never logged; empty: pinned binaries only (M10)
	StartTimeout        time.Duration
	DrainTimeout        time.Duration
	StopTimeout         time.Duration // between SIGTERM and SIGKILL (R6)
	LowLatency          bool          // scheduler and system-call measures of adapters/lowlatency
}

// FrontDoor is the guarded loopback endpoint and its bounds (L1, L3, L9).
type FrontDoor struct {
	Address        string // "127.0.0.1" or "[::1]"
	Port           int    // 0: of the system's choice (L14)
	RatePerMinute  int
	UnknownFields  string // "refuse" or "drop" (L12)
	MaxConnections int
	MaxHead        int64 // bytes
	MaxBody        int64 // bytes
	HeadTimeout    time.Duration
	BodyTimeout    time.Duration
	IdleTimeout    time.Duration
	StallTimeout   time.Duration // for a client that does not read
}

// Health configures the health probe (A4, A5).
type Health struct {
	Beat      time.Duration
	Recency   time.Duration
	IdleProbe time.Duration
}

// Lanes configures the lanes other than the local one, and what the owner allows (E2, E4). A lane without a base URL does not
// exist.
type Lanes struct {
	PrivacyMode      bool // organisation privacy mode
	Delegate         bool // the user works in another owner's partition
	DelegateManaged  bool // the owner lets delegates use managed lanes
	DelegateEnriched bool // the owner lets delegates enrich with the local or openrouter lane
	ConnectTimeout   time.Duration
	FirstByteTimeout time.Duration // of an answer, which comes last unless streamed
	RequestTimeout   time.Duration // to the end of the answer
	SelfHosted       Lane
	Enterprise       Lane
	OpenRouter       Lane
	DirectProvider   Lane
}

// Lane is one lane other than local. KeyEnv names the environment variable that holds its key (E5).
type Lane struct {
	BaseURL string
	Model   string
	KeyEnv  string
}

// Disk is what models and runtimes may take on disk (M15).
type Disk struct {
	Budget int64 // bytes; 0: no limit
}

// Log is the log file (J1).
type Log struct {
	Level   string // debug, info, warn, error
	MaxSize int64  // bytes, before rotation
	Backups int    // rotated files kept
}
