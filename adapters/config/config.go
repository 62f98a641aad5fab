// Package config is the companion's configuration: one TOML file in the platform's place, with
// environment variables and flags above it (contract X5), and the places where the program keeps
// things (cli.md, "Places").
//
// One table (keys.go) holds for every key its name, its default, what is accepted and its purpose. Loading, refusing,
// showing and the commented file all use that table, so that they cannot disagree. A configuration holds no secret:
// keys of other lanes are named by environment variable only.
package config

import "time"

// Settings are the effective values. Every field was checked by its key; the zero value is not
// usable, see Default and Load.
type Settings struct {
	Hub       Hub
	Manifest  Manifest
	Keychain  Keychain
	Model     Model
	Runtime   Runtime
	FrontDoor FrontDoor
	Health    Health
	Lanes     Lanes
	Log       Log
}

// Hub is the first-party hub and the sign-in (O1–O8).
type Hub struct {
	URL              string // https origin without a path
	IssuerURL        string // the OAuth issuer where it is not URL + /api/v1/auth/native; else empty
	CAFile           string // one more root certificate; empty: the system's alone
	ClientID         string // empty: register (RFC 7591)
	FirstParty       bool   // the RFC 9207 `iss` is required in the callback, announced or not (O4)
	ForeignEndpoints bool   // endpoints may lie outside the issuer's own origin (O1)
	RedirectAddress  string // "127.0.0.1" or "[::1]" (O2)
	SignInTimeout    time.Duration
}

// Issuer is the OAuth issuer identifier of the hub (hub.md), compared byte for byte with what the hub says.
func (h Hub) Issuer() string {
	if h.IssuerURL != "" {
		return h.IssuerURL
	}
	return h.URL + "/api/v1/auth/native"
}

// Manifest is the signed manifest (M1, M4).
type Manifest struct {
	RootFile     string // the pinned TUF root; empty: the one built in
	Grace        time.Duration
	PrivateHosts []string
}

// Keychain is where secrets are kept (K2).
type Keychain struct {
	Backend string // auto, secret-service, kernel-keyring, macos, windows
	Service string
}

// Model is what is served.
type Model struct {
	Name    string // empty: the manifest's default
	Context int    // tokens
}

// Runtime is the child and its limits. A limit of zero is no limit (P3).
type Runtime struct {
	Threads             int // zero: the runtime's own choice
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
	StopTimeout         time.Duration // between the polite signal and the hard one (R6)
	LowLatency          bool          // scheduler and system-call measures of adapters/lowlatency
}

// FrontDoor is the guarded loopback endpoint and its bounds (L1, L3, L9).
type FrontDoor struct {
	Address        string // "127.0.0.1" or "[::1]"
	RatePerMinute  int
	UnknownFields  string // "refuse" or "drop" (L12)
	MaxConnections int
	MaxHead        int64 // bytes
	MaxBody        int64 // bytes
	HeadTimeout    time.Duration
	BodyTimeout    time.Duration
	IdleTimeout    time.Duration
	StallTimeout   time.Duration // a reader that stops reading
}

// Health is the probe's beat (A4, A5).
type Health struct {
	Beat      time.Duration
	Recency   time.Duration
	IdleProbe time.Duration
}

// Lanes says what exists beside the local lane, and what its owner allows (E2, E4). A lane without
// a base URL does not exist.
type Lanes struct {
	PrivacyMode      bool // organisation privacy mode
	Delegate         bool // the user works in somebody else's partition
	DelegateManaged  bool // the owner lets delegates use managed lanes
	DelegateEnriched bool // the owner lets delegates enrich by the local or openrouter lane
	SelfHosted       Lane
	Enterprise       Lane
	OpenRouter       Lane
	DirectProvider   Lane
}

// Lane is one lane beside local. KeyEnv names the environment variable that holds its key (E5).
type Lane struct {
	BaseURL string
	Model   string
	KeyEnv  string
}

// Log is the log file (J1).
type Log struct {
	Level   string // debug, info, warn, error
	MaxSize int64  // bytes, before rotation
	Backups int    // rotated files kept
}
