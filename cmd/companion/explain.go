package main

import (
	"regexp"

	"companion/messages"
)

// explain puts a reason into one sentence, followed by the reason itself for scripts and searches.
func explain(r messages.Reason) string {
	if text, ok := words[r]; ok {
		return text + " (" + string(r) + ")"
	}
	return string(r)
}

// nextStep is what a person does about a reason; empty where nothing is to be done.
func nextStep(r messages.Reason) string {
	return link.ReplaceAllString(steps[r], "docs/$1")
}

// link is a link of the document that holds the same table.
var link = regexp.MustCompile(`\[[^]]*\]\(([^)]*)\)`)

// words says what each reason means, and steps what to do. docs/cli.md has both; tests compare them.
var words = map[messages.Reason]string{
	messages.ReasonOK:                       "nothing is wrong",
	messages.ReasonMalformedRequest:         "the request is not valid HTTP/1.1",
	messages.ReasonMethodNotAllowed:         "only GET, HEAD and POST are allowed",
	messages.ReasonHostNotAllowed:           "the Host header does not name this endpoint",
	messages.ReasonCrossSiteForbidden:       "the request comes from a web page",
	messages.ReasonRateStateUnavailable:     "the request rate cannot be read",
	messages.ReasonRateLimited:              "too many requests in a minute",
	messages.ReasonMissingToken:             "the token is missing",
	messages.ReasonInvalidToken:             "the token is not the daemon's current one",
	messages.ReasonUnknownPath:              "there is no such route",
	messages.ReasonModelNotFound:            "the requested model is not the one that is served",
	messages.ReasonBadRequest:               "the request is refused",
	messages.ReasonBodyTooLarge:             "the body is larger than `front_door.max_body`",
	messages.ReasonQueueTimeout:             "the request waited too long",
	messages.ReasonRuntimeUnavailable:       "the runtime does not run",
	messages.ReasonUpstreamFailed:           "the runtime failed in the middle of the answer",
	messages.ReasonRequestEndsRuntime:       "this request ended the runtime before and is refused for an hour",
	messages.ReasonMalformedSpec:            "the manifest describes the artifact badly",
	messages.ReasonSourceNotAllowed:         "the download would come from a host that the manifest does not allow",
	messages.ReasonSchemeNotAllowed:         "the download's URL is not https",
	messages.ReasonSizeMismatch:             "the download does not have its signed size",
	messages.ReasonDigestMismatch:           "the download does not match its signed checksum",
	messages.ReasonAccumulatorFinalized:     "bytes came after the end of the download",
	messages.ReasonAccumulatorAborted:       "the download was given up",
	messages.ReasonInvalidTransition:        "a later command replaced this one",
	messages.ReasonNotReady:                 "the runtime is not ready",
	messages.ReasonUnknownEvent:             "internal error: unknown event",
	messages.ReasonUnknownState:             "internal error: unknown state",
	messages.ReasonStartTimeout:             "the runtime did not become ready in time",
	messages.ReasonProcessExited:            "the runtime ended",
	messages.ReasonCrashLoop:                "the runtime failed again and again and is held back",
	messages.ReasonMalformedAdmissionState:  "internal error: the queue's state is not valid",
	messages.ReasonAtCapacity:               "all slots are taken",
	messages.ReasonQueueFull:                "too many requests are waiting",
	messages.ReasonNoInFlightToComplete:     "internal error: no request to complete",
	messages.ReasonMalformedLimits:          "the configured limits cannot be used",
	messages.ReasonMalformedObservation:     "the runtime's load cannot be read",
	messages.ReasonRAMOverLimit:             "the runtime needs more memory than `runtime.memory_limit`",
	messages.ReasonVRAMOverLimit:            "the GPU uses more memory than `runtime.gpu_memory_limit`",
	messages.ReasonCPUOverLimit:             "the runtime uses more CPU than `runtime.cpu_limit`",
	messages.ReasonProbeFailed:              "the runtime's memory and CPU use cannot be read",
	messages.ReasonMalformedRequestParams:   "internal error: the sign-in request is not valid",
	messages.ReasonMalformedInput:           "the browser came back with a malformed answer",
	messages.ReasonAuthorizationServerError: "the hub refused the sign-in",
	messages.ReasonStateMissing:             "the browser came back without this sign-in's state",
	messages.ReasonStateMismatch:            "the browser came back from another sign-in",
	messages.ReasonIssuerMissing:            "the hub did not name itself in its answer",
	messages.ReasonIssuerMismatch:           "another server than the hub answered",
	messages.ReasonMissingCode:              "the browser came back without a code",
	messages.ReasonInvalidRedirectURI:       "the redirect address is not a loopback address",
	messages.ReasonUnsupportedPKCEMethod:    "the hub does not support PKCE with S256",
	messages.ReasonInvalidTokenResponse:     "the hub's token answer is malformed",
	messages.ReasonMetadataInvalid:          "the hub's description of its sign-in is refused",
	messages.ReasonHubUnreachable:           "the hub does not answer",
	messages.ReasonRegistrationFailed:       "the hub did not register this client",
	messages.ReasonTokenExchangeFailed:      "the hub did not answer with a token",
	messages.ReasonBindFailed:               "no loopback port could be opened",
	messages.ReasonCallbackTimeout:          "the browser did not come back in time",
	messages.ReasonBrowserFailed:            "no browser could be opened",
	messages.ReasonSignInReplaced:           "another sign-in or a sign-out has ended this one",
	messages.ReasonDeviceUnsupported:        "the hub offers no device authorization",
	messages.ReasonInternalError:            "the companion itself failed",
	messages.ReasonSessionValid:             "the session is valid",
	messages.ReasonSessionRefresh:           "the access token needs a renewal",
	messages.ReasonSignInNeeded:             "nobody is signed in",
	messages.ReasonRefreshInterrupted:       "a refresh of the session was cut off, and its token must not be sent again",
	messages.ReasonUnknownAccount:           "internal error: unknown keychain item",
	messages.ReasonInvalidSecret:            "the secret is empty or not UTF-8",
	messages.ReasonSecretTooLarge:           "the keychain cannot hold a secret of this size",
	messages.ReasonKeychainUnavailable:      "there is no keychain service",
	messages.ReasonKeychainLocked:           "the keychain is locked",
	messages.ReasonKeychainDenied:           "the keychain denied access",
	messages.ReasonKeychainTimeout:          "the keychain did not answer in time",
	messages.ReasonKeychainFull:             "the keychain is full",
	messages.ReasonKeychainNoCollection:     "the keychain has no default collection",
	messages.ReasonManifestUntrusted:        "the manifest is not signed by a trusted key",
	messages.ReasonManifestExpired:          "the manifest has expired",
	messages.ReasonManifestRollback:         "the manifest is older than the one seen before",
	messages.ReasonManifestUnreachable:      "the hub's manifest cannot be reached",
	messages.ReasonNoSuchTarget:             "the manifest offers nothing by this name for this platform",
	messages.ReasonNoHub:                    "no hub is configured, and a model or a runtime is missing",
	messages.ReasonFileMissing:              "the file that you added is no longer in the data folder",
	messages.ReasonHTTPSRequired:            "the download would use plain http",
	messages.ReasonBadStatus:                "the artifact host refused the download",
	messages.ReasonTransferFailed:           "the download broke off",
	messages.ReasonNoSpace:                  "the disk has too little free space",
	messages.ReasonOverBudget:               "the models and runtimes on disk would take more than `disk.budget`",
	messages.ReasonAddressNotAllowed:        "the artifact host's name resolves to an address that is not public",
	messages.ReasonInvalidBinaryPath:        "the runtime's binary is missing",
	messages.ReasonBinaryUntrusted:          "the runtime's files are not the verified ones, or other users can write them",
	messages.ReasonInvalidModelPath:         "the model's file is missing",
	messages.ReasonSandboxUnavailable:       "this system cannot confine the runtime as configured",
	messages.ReasonSpawnFailed:              "the runtime could not be started",
	messages.ReasonNotExecutable:            "the data folder is on a file system that is mounted noexec",
	messages.ReasonLibraryMissing:           "the runtime needs a shared library that this system does not have",
	messages.ReasonBackendUnreachable:       "the runtime does not answer on its socket",
	messages.ReasonAllow:                    "consent is given",
	messages.ReasonCloudConsentRequired:     "private text leaves this machine only with a consent id",
	messages.ReasonLanePolicyDenied:         "the owner does not allow this lane",
}
