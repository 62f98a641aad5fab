package main

import (
	"strings"

	"companion/messages"
)

// explain puts a reason into words; one that needs none is shown as it is.
func explain(r messages.Reason) string {
	if text, ok := words[r]; ok {
		return text + " (" + string(r) + ")"
	}
	return strings.ReplaceAll(string(r), "_", " ") + " (" + string(r) + ")"
}

var words = map[messages.Reason]string{
	messages.ReasonSignInNeeded:             "nobody is signed in",
	messages.ReasonInvalidTransition:        "a later command took its place",
	messages.ReasonNotReady:                 "the runtime is not ready",
	messages.ReasonStartTimeout:             "the runtime did not become ready in time",
	messages.ReasonProcessExited:            "the runtime ended",
	messages.ReasonCrashLoop:                "the runtime crashed again and again and is held back",
	messages.ReasonRuntimeUnavailable:       "the runtime is not there",
	messages.ReasonUpstreamFailed:           "the runtime failed in mid-answer",
	messages.ReasonRequestEndsRuntime:       "this request ended the runtime before and is refused for an hour",
	messages.ReasonRAMOverLimit:             "the runtime is over its memory limit",
	messages.ReasonVRAMOverLimit:            "the GPU is over its memory limit",
	messages.ReasonCPUOverLimit:             "the runtime is over its CPU limit",
	messages.ReasonProbeFailed:              "the runtime's use of memory and CPU cannot be read",
	messages.ReasonSandboxUnavailable:       "this system cannot confine the runtime as configured",
	messages.ReasonSpawnFailed:              "the runtime could not be started",
	messages.ReasonBackendUnreachable:       "the runtime does not answer on its socket",
	messages.ReasonBinaryUntrusted:          "the runtime's files are not what was verified, or others can write them",
	messages.ReasonInvalidBinaryPath:        "the runtime's binary is not where it should be",
	messages.ReasonInvalidModelPath:         "the model's file is not where it should be",
	messages.ReasonKeychainUnavailable:      "there is no keychain service",
	messages.ReasonKeychainLocked:           "it is locked",
	messages.ReasonKeychainDenied:           "it denied access",
	messages.ReasonKeychainTimeout:          "it did not answer in time",
	messages.ReasonSecretTooLarge:           "it cannot hold a secret of this size",
	messages.ReasonManifestUntrusted:        "the manifest is not signed by whom it must be",
	messages.ReasonManifestExpired:          "the manifest has expired",
	messages.ReasonManifestRollback:         "the manifest is older than the one seen before",
	messages.ReasonManifestUnreachable:      "the hub's manifest cannot be reached",
	messages.ReasonNoSuchTarget:             "the manifest offers nothing by this name for this platform",
	messages.ReasonSizeMismatch:             "what came is not of the size that the manifest says",
	messages.ReasonDigestMismatch:           "what came is not what the manifest says",
	messages.ReasonSourceNotAllowed:         "it would come from a place that the manifest does not allow",
	messages.ReasonBadStatus:                "the server of the artifact refused",
	messages.ReasonTransferFailed:           "the transfer broke off",
	messages.ReasonNoSpace:                  "there is not enough room on the disk",
	messages.ReasonAuthorizationServerError: "the hub refused the sign-in",
	messages.ReasonCallbackTimeout:          "the browser did not come back in time",
	messages.ReasonBrowserFailed:            "no browser could be opened",
	messages.ReasonBindFailed:               "no loopback port could be opened",
	messages.ReasonMetadataInvalid:          "the hub cannot be reached, or describes its sign-in in a way that is refused",
	messages.ReasonRegistrationFailed:       "the hub did not register this client",
	messages.ReasonTokenExchangeFailed:      "the hub did not answer with a token",
	messages.ReasonCloudConsentRequired:     "private text leaves this machine only with a consent id",
	messages.ReasonLanePolicyDenied:         "the owner does not allow this lane",
	messages.ReasonInvalidToken:             "the token is not the one of this start",
	messages.ReasonQueueFull:                "too many requests are waiting",
	messages.ReasonQueueTimeout:             "the request waited too long",
}
