package messages

import "time"

// ArtifactKind is what an artifact is for.
type ArtifactKind string

// The two kinds of the manifest (M2).
const (
	KindModel   ArtifactKind = "model"
	KindRuntime ArtifactKind = "runtime"
)

// Artifact is one target of the verified manifest, as the runtime wing may know it (M3): its name, where it may
// be downloaded from, its digest and its size.
type Artifact struct {
	Name    string
	Version string
	Kind    ArtifactKind
	URLs    []string // https, tried in order
	Origins []string // allowed origin plus path prefix (M4), such as "https://models.example/v1/"
	// PrivateHosts may resolve to loopback or private addresses (configuration [manifest] private_hosts).
	PrivateHosts []string
	SHA256       [32]byte
	Size         int64  // bytes
	Embedding    bool   // model: an embedding model (L5)
	Format       string // runtime: "tar.gz" or "zip"
	// Files lists every file of a runtime archive; the archive may contain no other (M12).
	Files []ArchiveFile
	// Executable is the archive-relative path of the program (runtime).
	Executable string
	// Chunks are the digests of the chunks of ChunkSize bytes (M14); empty: the manifest has none.
	ChunkSize int64
	Chunks    [][32]byte
	// Own: the user added it to the catalogue of this machine (M16). It needs no session, and may have no URL.
	Own bool

	// Parts are the files of a model that has several, or that has settings (M17). The first is the model's header. Then
	// SHA256 is of the digests of all parts and the settings, Size is the sum, and the fields of one file are empty.
	Parts    []Artifact
	Role     PartRole // of a part
	Settings ModelSettings
}

// PartRole is what a file of a model is for.
type PartRole string

// The roles. The weights of a split model are in several files, in order.
const (
	RoleWeights   PartRole = "weights"
	RoleProjector PartRole = "mmproj"
	RoleDraft     PartRole = "draft"
)

// ArchiveFile is one file or symbolic link of a runtime archive.
type ArchiveFile struct {
	Path       string   // slash separated, relative
	SHA256     [32]byte // of a regular file
	Size       int64
	Executable bool
	LinkTarget string // not empty: a symbolic link
}

// FileIdentity pins a verified file (M9). Times are nanoseconds since 1970.
type FileIdentity struct {
	Device, Inode            uint64
	Size                     int64
	ModifiedNano, ChangeNano int64
}

// VerifiedModel is a model file whose digest has been verified. Path is for the runtime wing and is never
// logged.
type VerifiedModel struct {
	Name, Version string
	Path          string
	Identity      FileIdentity
	SHA256        [32]byte // of the artifact
	Embedding     bool
	Own           bool // the user added it (M16)
	// Parts are the further files of a model of several (M17).
	Parts    []VerifiedPart
	Settings ModelSettings
}

// VerifiedPart is one further file of a verified model.
type VerifiedPart struct {
	Role     PartRole
	Name     string
	Path     string
	Identity FileIdentity
}

// VerifiedRuntime is an unpacked runtime whose files all have the digests of the manifest (M10,
// M12). Pinned is false for the binary that the configuration allows unpinned.
type VerifiedRuntime struct {
	Name, Version string
	SHA256        [32]byte // of the archive; zero for the unpinned binary
	Dir           string
	Executable    string // relative to Dir
	Files         []ArchiveFile
	Pinned        bool
	Own           bool // the user added it (M16)
}

// Transfer is the progress of one download (M11).
type Transfer struct {
	Name           string `json:"name"`
	Bytes          int64  `json:"bytes"`
	Total          int64  `json:"total"`
	BytesPerSecond int64  `json:"bytesPerSecond"`
	SecondsLeft    int64  `json:"secondsLeft"` // -1 when unknown
}

// ToProvision is what the provision actor accepts.
type ToProvision interface{ toProvision() }

// Want names the model and runtime that should be on disk. Provision checks what is there, fetches what is
// missing if MayFetch, and tells lifecycle ArtifactsVerified or IntegrityLost. A Want replaces the
// previous one. Sent by manifest.
type Want struct {
	Model, Runtime Artifact
	// GoodModel and GoodRuntime became ready last (M13). They are offered as soon as they are found on
	// disk, and never fetched. Without a kind there is no such pair. GoodRuntime has no kind if it was
	// the unpinned binary.
	GoodModel, GoodRuntime Artifact
	// MayFetch is false while signed out, after the manifest has expired, and when it allows nothing (M1).
	// Transfers that run then end, and their bytes are kept.
	MayFetch bool
	// FetchRefused is why MayFetch is false: the reason that lifecycle is told when something is
	// missing. Empty means ReasonSignInNeeded.
	FetchRefused Reason
}

// Fetch asks to download one artifact without serving it (pull NAME).
type Fetch struct {
	Artifact Artifact
	Reply    chan<- Reason
}

// Reverify asks to hash what the last Want named again (M9). Sent by lifecycle.
type Reverify struct{}

// Held asks which artifacts are on disk and verified (models).
type Held struct {
	Artifacts []Artifact
	Reply     chan<- []HeldArtifact
}

// Prune removes unused files (M15): versions that are not in Keep, not wanted, not last known good, and not offered
// to lifecycle since a pair became ready; and partial downloads that were not modified for two weeks. Sent by manifest.
// Without a Reply it is the regular clean-up, which waits until a pair has become ready.
type Prune struct {
	Keep   [][32]byte // every artifact that the manifest names
	DryRun bool       // only list
	Reply  chan<- PruneResult
}

// PruneResult answers Prune.
type PruneResult struct {
	Items  []PrunedItem
	Reason Reason // ReasonOK, or why some items could not be removed
}

// PrunedItem is one unused file or folder.
type PrunedItem struct {
	Kind     string    `json:"kind"` // "model", "runtime", "archive" or "partial"
	Bytes    int64     `json:"bytes"`
	Modified time.Time `json:"modified"`
}

// HeldArtifact is one row of the answer to Held.
type HeldArtifact struct {
	Name, Version string
	Here          bool
	Verified      bool
	PartialBytes  int64
}

// ConfirmProvision asks provision to report again what is verified: lifecycle has restarted (A9).
type ConfirmProvision struct{}

func (Want) toProvision()             {}
func (Prune) toProvision()            {}
func (PairReady) toProvision()        {}
func (Fetch) toProvision()            {}
func (Reverify) toProvision()         {}
func (Held) toProvision()             {}
func (ConfirmProvision) toProvision() {}

// ToProcess is what the process actor accepts.
type ToProcess interface{ toProcess() }

// Spawn starts the runtime. The answers are RuntimeStarted, BackEndUp and, in every case, exactly one
// RuntimeExited. A Spawn with a higher launch number kills the current launch, which a restarted sender does not
// know, and replaces it. A Spawn with a lower number is answered with RuntimeExited.
type Spawn struct {
	Launch  Launch
	Model   VerifiedModel
	Runtime VerifiedRuntime
	Plain   bool // without speculative decoding, which was unfit (R12)
}

// Kill ends the process group of the launch by SIGTERM, then SIGKILL (R6). The answer is RuntimeExited, or
// RuntimeAbsent if nothing runs.
type Kill struct{ Launch Launch }

// CheckModel asks whether the model's file is still the verified one. A sleeping model is read again when it wakes
// (R14). If the file has changed, the answers are IdentityChanged and RuntimeExited. Sent by lifecycle.
type CheckModel struct{ Launch Launch }

// ConfirmProcess asks the process actor to report again what runs: lifecycle has restarted (A9).
type ConfirmProcess struct{}

func (Spawn) toProcess()          {}
func (Kill) toProcess()           {}
func (CheckModel) toProcess()     {}
func (ConfirmProcess) toProcess() {}

// Sandbox is the confinement level that the canaries have proved (R4).
type Sandbox struct {
	Landlock int  `json:"landlock"` // ABI in force, 0 when none
	Seccomp  bool `json:"seccomp"`
	Netns    bool `json:"netns"`  // it runs in a network namespace of its own (R10)
	Mounts   bool `json:"mounts"` // mounts that it does not need are covered (R4)
}

// ProcessView is the part of status about the runtime process. Published by process.
type ProcessView struct {
	Name, Version string
	PID           int    // 0 when none runs
	BackEnd       string // "unix" or "tcp"
	Pinned        bool
	Own           bool // the user added it (M16)
	Sandbox       Sandbox
	StartedAt     time.Time
	// ExpectedBytes is the memory that the model's weights, the full context of every slot and the full prompt cache take;
	// 0: it is not known (R5).
	ExpectedBytes int64
}

// Observation is a measurement of the runtime process (P1). Failed means that a running runtime could not be
// measured; requests are then denied (P3).
type Observation struct {
	At            time.Time
	PID           int
	ResidentBytes int64
	CPUPercent    float64
	CPUTime       time.Duration // since the process began
	GPUBytes      int64         // sum over all devices, 0 if it cannot be read
	Failed        bool
}

// ResourceLimits are the configured limits; zero means none (P3).
type ResourceLimits struct {
	ResidentBytes int64
	GPUBytes      int64
	CPUPercent    float64 // (0,100]
}
