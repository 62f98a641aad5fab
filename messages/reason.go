package messages

// Reason is a reason code: one of the constants below, never built from input (reasons.md). New ones are added
// to the specification first.
type Reason string

// ReasonOK is shared by guard, integrity, availability and replies.
const ReasonOK Reason = "ok"

// Guard (L3).
const (
	ReasonMalformedRequest     Reason = "malformed_request"
	ReasonMethodNotAllowed     Reason = "method_not_allowed"
	ReasonHostNotAllowed       Reason = "host_not_allowed"
	ReasonCrossSiteForbidden   Reason = "cross_site_forbidden"
	ReasonRateStateUnavailable Reason = "rate_state_unavailable"
	ReasonRateLimited          Reason = "rate_limited"
	ReasonMissingToken         Reason = "missing_token"
	ReasonInvalidToken         Reason = "invalid_token"
)

// Front door (L5, L6, L6a, L8, R11).
const (
	ReasonUnknownPath        Reason = "unknown_path"
	ReasonModelNotFound      Reason = "model_not_found"
	ReasonBadRequest         Reason = "bad_request"
	ReasonBodyTooLarge       Reason = "body_too_large"
	ReasonQueueTimeout       Reason = "queue_timeout"
	ReasonRuntimeUnavailable Reason = "runtime_unavailable"
	ReasonUpstreamFailed     Reason = "upstream_failed"
	ReasonRequestEndsRuntime Reason = "request_ends_runtime"
)

// Integrity (M6, M9).
const (
	ReasonMalformedSpec        Reason = "malformed_spec"
	ReasonSourceNotAllowed     Reason = "source_not_allowed"
	ReasonSchemeNotAllowed     Reason = "scheme_not_allowed"
	ReasonSizeMismatch         Reason = "size_mismatch"
	ReasonDigestMismatch       Reason = "digest_mismatch"
	ReasonAccumulatorFinalized Reason = "accumulator_finalized"
	ReasonAccumulatorAborted   Reason = "accumulator_aborted"
)

// Lifecycle (A1–A8).
const (
	ReasonInvalidTransition Reason = "invalid_transition"
	ReasonNotReady          Reason = "not_ready"
	ReasonUnknownEvent      Reason = "unknown_event"
	ReasonUnknownState      Reason = "unknown_state"
	ReasonStartTimeout      Reason = "start_timeout"
	ReasonProcessExited     Reason = "process_exited"
	ReasonCrashLoop         Reason = "crash_loop"
)

// Admission (L6, A6).
const (
	ReasonMalformedAdmissionState Reason = "malformed_admission_state"
	ReasonAtCapacity              Reason = "at_capacity"
	ReasonQueueFull               Reason = "queue_full"
	ReasonNoInFlightToComplete    Reason = "no_in_flight_to_complete"
)

// Resources (P3).
const (
	ReasonMalformedLimits      Reason = "malformed_limits"
	ReasonMalformedObservation Reason = "malformed_observation"
	ReasonRAMOverLimit         Reason = "ram_over_limit"
	ReasonVRAMOverLimit        Reason = "vram_over_limit"
	ReasonCPUOverLimit         Reason = "cpu_over_limit"
	ReasonProbeFailed          Reason = "probe_failed"
)

// ReasonMalformedRequestParams says that the gate was called without a snapshot.
const ReasonMalformedRequestParams Reason = "malformed_request_params"

// OAuth (O1–O8).
const (
	ReasonMalformedInput           Reason = "malformed_input"
	ReasonAuthorizationServerError Reason = "authorization_server_error"
	ReasonStateMissing             Reason = "state_missing"
	ReasonStateMismatch            Reason = "state_mismatch"
	ReasonIssuerMissing            Reason = "issuer_missing"
	ReasonIssuerMismatch           Reason = "issuer_mismatch"
	ReasonMissingCode              Reason = "missing_code"
	ReasonInvalidRedirectURI       Reason = "invalid_redirect_uri"
	ReasonUnsupportedPKCEMethod    Reason = "unsupported_pkce_method"
	ReasonInvalidTokenResponse     Reason = "invalid_token_response"
	ReasonMetadataInvalid          Reason = "metadata_invalid"
	ReasonHubUnreachable           Reason = "hub_unreachable"
	ReasonRegistrationFailed       Reason = "registration_failed"
	ReasonTokenExchangeFailed      Reason = "token_exchange_failed"
	ReasonBindFailed               Reason = "bind_failed"
	ReasonCallbackTimeout          Reason = "callback_timeout"
	ReasonBrowserFailed            Reason = "browser_failed"
	ReasonSignInReplaced           Reason = "sign_in_replaced"
	ReasonDeviceUnsupported        Reason = "device_unsupported"
	ReasonRefreshInterrupted       Reason = "refresh_interrupted"
)

// Session decisions (O8): a malformed or missing session leads to reauth.
const (
	ReasonSessionValid   Reason = "valid"
	ReasonSessionRefresh Reason = "refresh"
	ReasonSignInNeeded   Reason = "reauth"
)

// Keychain (K1–K7).
const (
	ReasonUnknownAccount       Reason = "unknown_account"
	ReasonInvalidSecret        Reason = "invalid_secret"
	ReasonSecretTooLarge       Reason = "secret_too_large"
	ReasonKeychainUnavailable  Reason = "keychain_unavailable"
	ReasonKeychainLocked       Reason = "keychain_locked"
	ReasonKeychainDenied       Reason = "keychain_denied"
	ReasonKeychainTimeout      Reason = "keychain_timeout"
	ReasonKeychainFull         Reason = "keychain_full"
	ReasonKeychainNoCollection Reason = "keychain_no_collection"
)

// ReasonInternalError says that the daemon failed; the log has the details.
const ReasonInternalError Reason = "internal_error"

// Manifest (M1).
const (
	ReasonManifestUntrusted   Reason = "manifest_untrusted"
	ReasonManifestExpired     Reason = "manifest_expired"
	ReasonManifestRollback    Reason = "manifest_rollback"
	ReasonManifestUnreachable Reason = "manifest_unreachable"
	ReasonNoSuchTarget        Reason = "no_such_target"
)

// The user's own catalogue (M16).
const (
	// ReasonNoHub: no hub is configured, and what is missing was not added.
	ReasonNoHub Reason = "no_hub"
	// ReasonFileMissing: the file that the user added is not in the data folder, and no URL is known.
	ReasonFileMissing Reason = "file_missing"
)

// Download (M5, M8).
const (
	ReasonHTTPSRequired  Reason = "https_required"
	ReasonBadStatus      Reason = "bad_status"
	ReasonTransferFailed Reason = "transfer_failed"
	ReasonNoSpace        Reason = "no_space"
	// ReasonOverBudget: the models and runtimes on disk would take more than disk.budget (M15).
	ReasonOverBudget Reason = "over_budget"
	// ReasonAddressNotAllowed: the host name of an artifact resolves to an address that is not public (M4). A VPN, a
	// proxy or the sign-in page of a network can cause this, so it may end when the network changes.
	ReasonAddressNotAllowed Reason = "address_not_allowed"
)

// Spawn (R2–R5).
const (
	ReasonInvalidBinaryPath  Reason = "invalid_binary_path"
	ReasonBinaryUntrusted    Reason = "binary_untrusted"
	ReasonInvalidModelPath   Reason = "invalid_model_path"
	ReasonSandboxUnavailable Reason = "sandbox_unavailable"
	ReasonSpawnFailed        Reason = "spawn_failed"
	// ReasonNotExecutable: the data folder is on a file system that is mounted noexec.
	ReasonNotExecutable Reason = "not_executable"
	// ReasonLibraryMissing: the runtime needs a shared library that neither its archive nor this system has.
	ReasonLibraryMissing     Reason = "library_missing"
	ReasonBackendUnreachable Reason = "backend_unreachable"
)

// Consent (E4).
const (
	ReasonAllow                Reason = "allow"
	ReasonCloudConsentRequired Reason = "cloud_consent_required"
	ReasonLanePolicyDenied     Reason = "lane_policy_denied"
)
