package messages

import "time"

// User is the signed-in user, as returned by the hub's session endpoint.
type User struct {
	Subject  string `json:"sub"`
	Provider string `json:"provider"`
	ID       string `json:"id"`
	Name     string `json:"name"`
	Role     string `json:"role"`
}

// Session is the stored sign-in (K5). Never sent outside the authority wing.
type Session struct {
	AccessToken  Secret
	RefreshToken Secret // zero if the hub issued none
	Meta         SessionMeta
}

// SessionMeta is the part of the session that is not secret.
type SessionMeta struct {
	Issuer        string    `json:"issuer"`
	ClientID      string    `json:"clientId"`
	Scope         string    `json:"scope"`
	AccessIssued  time.Time `json:"accessIssued,omitzero"` // zero in a session of an earlier version
	AccessExpires time.Time `json:"accessExpires"`
	User          User      `json:"user"`
}

// ToCustody is what the custody actor accepts from the session actor. No other actor has this mailbox: the
// replies carry the user's tokens (C1).
type ToCustody interface{ toCustody() }

// LoadSession asks for the stored session. A torn or missing one answers with Found false and ReasonOK; a failing keychain with
// its reason (K4, K5). Ask, here and below, allows one dialog of the keychain: the user has just asked for something.
type LoadSession struct {
	Ask   bool
	Reply chan<- LoadedSession
}

// LoadedSession answers LoadSession.
type LoadedSession struct {
	Session Session
	Found   bool
	Reason  Reason
}

// StoreSession stores the tokens of a session, then its metadata (K5). The reply is ReasonOK or the keychain's reason.
type StoreSession struct {
	Session Session
	Ask     bool
	Reply   chan<- Reason
}

// ClearSession removes the metadata of the session, then its tokens.
type ClearSession struct {
	Ask   bool
	Reply chan<- Reason
}

// PendingRevocations is how many refresh tokens the keychain can hold that the hub has not revoked yet (K8).
const PendingRevocations = 4

// LoadRevocation asks for the refresh token in this place, from 0 to PendingRevocations-1.
type LoadRevocation struct {
	Place int
	Reply chan<- LoadedRevocation
}

// LoadedRevocation answers LoadRevocation. A missing item is a zero Token and ReasonOK.
type LoadedRevocation struct {
	Token  Secret
	Reason Reason
}

// StoreRevocation stores a refresh token that is only ever sent to be revoked. The reply is ReasonOK or the keychain's reason.
type StoreRevocation struct {
	Place int
	Token Secret
	Reply chan<- Reason
}

// ClearRevocation removes the refresh token in this place.
type ClearRevocation struct {
	Place int
	Reply chan<- Reason
}

// LoopbackRequest is what the custody actor accepts from lifecycle and front door, in a mailbox of its own:
// no reply to it carries a secret of the session (C1).
type LoopbackRequest interface{ loopbackRequest() }

// DeliverLoopbackToken asks custody to send the token again to a front door that has restarted.
type DeliverLoopbackToken struct{}

// ConfirmCustody asks custody to report again whether the token is stored: lifecycle has restarted (A9).
type ConfirmCustody struct{}

// ClearLoopbackToken removes the loopback token at clean shutdown (K6).
type ClearLoopbackToken struct{ Reply chan<- Reason }

func (LoadSession) toCustody()     {}
func (StoreSession) toCustody()    {}
func (ClearSession) toCustody()    {}
func (LoadRevocation) toCustody()  {}
func (StoreRevocation) toCustody() {}
func (ClearRevocation) toCustody() {}

func (DeliverLoopbackToken) loopbackRequest() {}
func (ConfirmCustody) loopbackRequest()       {}
func (ClearLoopbackToken) loopbackRequest()   {}

// AccessTokenRequest asks the session actor for an access token that is valid now (O8). Only the
// manifest actor holds this mailbox.
type AccessTokenRequest struct {
	Reply chan<- AccessToken
	// Refused is an access token that the hub did not accept, or zero. If it is the current one, the session
	// actor refreshes it before it answers.
	Refused Secret
}

// AccessToken answers AccessTokenRequest: ReasonOK with a token, or the reason why there is none.
// ReasonSignInNeeded says that the user must sign in.
type AccessToken struct {
	Token  Secret
	Reason Reason
}

// SessionCommand is what the control actor may send to the session actor. No reply carries a secret (X2).
type SessionCommand interface{ sessionCommand() }

// Login begins a sign-in. Page is sent at most once, when the user can begin; Done is sent exactly once. When Cancelled is
// closed the attempt ends. Both channels need a capacity of one.
type Login struct {
	// Device asks for device authorization (RFC 8628, O11) instead of a browser on this machine.
	Device    bool
	Page      chan<- LoginPage
	Done      chan<- LoginResult
	Cancelled <-chan struct{}
}

// LoginPage is what the command line shows while a sign-in waits for the user.
type LoginPage struct {
	// URL is the start page on loopback, which sends the browser on to the hub, so that state and challenge are in no
	// argument, log or control reply; with device authorization it is the hub's verification page.
	URL string `json:"url"`
	// Code is what the user types into the verification page. Complete is the URL of the page with the code filled in, or
	// empty. Only device authorization sets them.
	Code     string `json:"code,omitempty"`
	Complete string `json:"complete,omitempty"`
	// Until is when the attempt ends by itself.
	Until time.Time `json:"until"`
}

// LoginResult ends a Login. Detail is a server's RFC 6749 error code, or empty; never free text
// from the server (O4).
type LoginResult struct {
	Reason Reason
	Detail string
	User   User
	// Hub is why the hub of the replaced session cannot be told that it has ended: ReasonIssuerMismatch, or ReasonOK. It is empty
	// after a failure.
	Hub Reason
}

// Logout revokes the tokens at the hub, best effort, and clears the session (O9).
type Logout struct{ Reply chan<- LogoutResult }

// LogoutResult answers Logout.
type LogoutResult struct {
	Reason Reason // ReasonOK, or why the keychain still holds the session
	Hub    Reason // ReasonOK, or why the hub could not be told
	Again  RevokeAgain
}

// RevokeAgain says for how long a failed revocation is retried (O9).
type RevokeAgain string

// Not at all, while the daemon runs, or also after a restart of the daemon (K8).
const (
	RevokeNotAgain     RevokeAgain = ""
	RevokeWhileRunning RevokeAgain = "while_running"
	RevokeUntilDone    RevokeAgain = "until_done"
)

// WhoAmI asks the hub for the signed-in user.
type WhoAmI struct{ Reply chan<- WhoAmIResult }

// WhoAmIResult answers WhoAmI.
type WhoAmIResult struct {
	User   User
	Reason Reason
}

func (Login) sessionCommand()  {}
func (Logout) sessionCommand() {}
func (WhoAmI) sessionCommand() {}

// SessionState is what status shows of the session.
type SessionState string

// Session states. SessionUnknown holds until the keychain has answered. SessionNoHub: no hub is configured, so there is
// nothing to sign in to.
const (
	SessionNoHub     SessionState = "no_hub"
	SessionUnknown   SessionState = "unknown"
	SessionSignedIn  SessionState = "signed_in"
	SessionSignedOut SessionState = "signed_out"
)

// SessionView is published by the session actor.
type SessionView struct {
	State   SessionState
	User    User
	Reason  Reason    // ReasonOK, or why the state is not known or not signed in
	Expires time.Time // of the access token; zero when signed out
	// Trouble is the reason of the last failure of refresh, sign-out or storing, until that succeeds; empty if there is none.
	Trouble   Reason
	TroubleAt time.Time
	// Unrevoked counts the ended sessions that the hub has not revoked yet (O9).
	Unrevoked int
}

// ManifestCommand is what the control, session and lifecycle actors may send to the manifest actor.
type ManifestCommand interface{ manifestCommand() }

// SessionChanged says that the user has signed in or out. Sent by session.
type SessionChanged struct{}

// Pull refreshes the manifest and fetches: Name empty means the wanted model and runtime.
type Pull struct {
	Name  string
	Reply chan<- Reason
}

// Use fetches and verifies the model Name, serves it instead of the present one, and records the choice for the next
// starts. An empty Name returns to the configured model, or the manifest's default. The reply comes when the model is
// ready, or says why it is not; then the model before it serves on. While the runtime is stopped the choice
// alone is recorded.
type Use struct {
	Name  string
	Reply chan<- Reason
}

// ListModels asks for the models of the manifest and which of them are on disk.
type ListModels struct{ Reply chan<- ModelList }

// ModelList answers ListModels.
type ModelList struct {
	Models []ModelRow
	Reason Reason // ReasonOK, or why there is no list
}

// ModelRow is one model of the manifest.
type ModelRow struct {
	Name         string `json:"name"`
	Version      string `json:"version"`
	Size         int64  `json:"size"` // bytes
	Default      bool   `json:"default"`
	Selected     bool   `json:"selected"`
	Here         bool   `json:"here"`
	Verified     bool   `json:"verified"`
	PartialBytes int64  `json:"partialBytes"`
	LastGood     bool   `json:"lastGood"` // it became ready last (M13)
	Running      bool   `json:"running"`  // set by the command line, from the status
	// Yours: the user added it (M16).
	Yours bool `json:"yours"`
}

// PruneUnused asks to remove what nothing uses (M15), or with DryRun to list it.
type PruneUnused struct {
	DryRun bool
	Reply  chan<- PruneResult
}

// ReloadOwn says that the user's own catalogue has changed (M16). The reply is ReasonOK or why it cannot be used.
type ReloadOwn struct{ Reply chan<- Reason }

// RepeatWant asks to send the last Want again to a provision actor that has restarted (A9). Sent by
// lifecycle.
type RepeatWant struct{}

// PairReady says that this model and runtime became ready, so that they are recorded as the last known
// good pair (M13). A zero runtime digest means the unpinned binary. Sent by lifecycle.
type PairReady struct{ Model, Runtime [32]byte }

func (PairReady) manifestCommand()      {}
func (PruneUnused) manifestCommand()    {}
func (ReloadOwn) manifestCommand()      {}
func (RepeatWant) manifestCommand()     {}
func (SessionChanged) manifestCommand() {}
func (Pull) manifestCommand()           {}
func (Use) manifestCommand()            {}
func (ListModels) manifestCommand()     {}

// ManifestView is published by the manifest actor.
type ManifestView struct {
	Version   int64
	Expires   time.Time
	CheckedAt time.Time // last successful refresh from the hub
	Grace     bool      // expired, and within the grace period (M1)
	Reason    Reason    // ReasonOK, or why the last refresh failed
	RetryAt   time.Time // the next refresh after a failed one; zero: it waits for a sign-in
	Added     int       // artifacts that the user added (M16)
	// AddedReason is ReasonOK, or why the user's own catalogue cannot be used.
	AddedReason Reason
}
