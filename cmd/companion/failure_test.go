package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"companion/messages"
)

// X3: every reason of messages/reason.go has its exit status, so that a new one cannot be forgotten
// silently: what is not in this table fails.
func TestExitOfEveryReason(t *testing.T) {
	want := map[int]string{
		exitDone:   "ok allow valid",
		exitSignIn: "reauth refresh refresh_interrupted",
		exitPolicy: "cloud_consent_required lane_policy_denied",
		exitKeychain: "unknown_account invalid_secret secret_too_large keychain_unavailable keychain_locked " +
			"keychain_denied keychain_timeout keychain_full keychain_no_collection",
		exitIntegrity: "malformed_spec source_not_allowed scheme_not_allowed size_mismatch digest_mismatch accumulator_finalized " +
			"accumulator_aborted manifest_untrusted manifest_expired manifest_rollback https_required binary_untrusted",
		exitUnavailable: "invalid_transition not_ready unknown_event unknown_state start_timeout process_exited crash_loop queue_timeout " +
			"runtime_unavailable upstream_failed malformed_admission_state at_capacity queue_full no_in_flight_to_complete " +
			"malformed_limits malformed_observation ram_over_limit vram_over_limit cpu_over_limit probe_failed " +
			"invalid_binary_path invalid_model_path sandbox_unavailable spawn_failed not_executable library_missing backend_unreachable " +
			"no_hub file_missing",
		exitFailed: "malformed_request method_not_allowed host_not_allowed cross_site_forbidden rate_state_unavailable rate_limited " +
			"missing_token invalid_token unknown_path model_not_found bad_request body_too_large request_ends_runtime malformed_request_params " +
			"malformed_input authorization_server_error state_missing state_mismatch issuer_missing issuer_mismatch missing_code " +
			"invalid_redirect_uri unsupported_pkce_method invalid_token_response metadata_invalid hub_unreachable registration_failed " +
			"token_exchange_failed bind_failed callback_timeout browser_failed sign_in_replaced device_unsupported internal_error manifest_unreachable bad_status transfer_failed " +
			"no_space over_budget no_such_target address_not_allowed",
	}
	codes := map[string]int{}
	for code, reasons := range want {
		for _, reason := range strings.Fields(reasons) {
			codes[reason] = code
		}
	}
	file, err := parser.ParseFile(token.NewFileSet(), "../../messages/reason.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	ast.Inspect(file, func(node ast.Node) bool {
		literal, ok := node.(*ast.BasicLit)
		if !ok || literal.Kind != token.STRING {
			return true
		}
		reason, err := strconv.Unquote(literal.Value)
		if err != nil {
			t.Fatal(err)
		}
		n++
		code, listed := codes[reason]
		if got := exitOf(messages.Reason(reason)); !listed || got != code {
			t.Errorf("%s: exit status %d, want %d (listed: %v)", reason, got, code, listed)
		}
		return true
	})
	if n != len(codes) {
		t.Errorf("got %d reasons in the table, want the %d of the code", len(codes), n)
	}
}
