package keychain

import (
	"fmt"
	"os"
	"testing"

	"companion/messages"
)

// maxWindowsValue is what one credential holds (wincred.h: CRED_MAX_CREDENTIAL_BLOB_SIZE).
const maxWindowsValue = 5 * 512

// K1, K2, K4
func TestCredentialManager(t *testing.T) {
	service := fmt.Sprintf("companion-test-%d", os.Getpid())
	testBackEnd(t, credentialManager{}, service, maxWindowsValue)
	err := credentialManager{}.set(t.Context(), service, string(AccessToken), string(make([]byte, maxWindowsValue+1)))
	wantReason(t, err, messages.ReasonSecretTooLarge)
}
