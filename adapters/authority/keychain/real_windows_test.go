package keychain

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"companion/messages"
)

// maxWindowsValue is the largest credential (wincred.h: CRED_MAX_CREDENTIAL_BLOB_SIZE).
const maxWindowsValue = 5 * 512

// K1, K2, K4
func TestCredentialManager(t *testing.T) {
	service := fmt.Sprintf("companion-test-%d", os.Getpid())
	testBackEnd(t, credentialManager{}, service, maxWindowsValue)
	k := newKeychain(credentialManager{}, Options{Service: service})
	err := k.Set(t.Context(), AccessToken, messages.NewSecret(strings.Repeat("a", maxWindowsValue+1)))
	wantReason(t, err, messages.ReasonSecretTooLarge)
}
