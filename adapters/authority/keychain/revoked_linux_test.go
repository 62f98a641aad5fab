package keychain

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"companion/messages"
)

// K2, K4: a revoked key counts as missing, a revoked session keyring does not matter, and a revoked user
// keyring is a keychain that is not available: nothing counts as stored.
func TestKernelKeyringRevoked(t *testing.T) {
	const name = "KEYCHAIN_TEST_REVOKED"
	if os.Getenv(name) == "" {
		again(t, []string{name + "=1"}, "unshare", "--user", "--map-root-user") // with a user keyring of its own (Linux 5.3)
		return
	}
	runtime.LockOSThread() // a session keyring belongs to a thread
	service := uniqueService(t)
	k := newKeychain(kernelKeyring{}, Options{Service: service})
	value := messages.NewSecret("value")
	if err := k.Set(t.Context(), LoopbackToken, value); err != nil {
		t.Fatal(err)
	}
	revoke := func(keyring int, key string) {
		t.Helper()
		if err := withUserKeyring(func() error {
			id := keyring
			if key != "" {
				var err error
				if id, err = unix.KeyctlSearch(keyring, keyType, key, 0); err != nil {
					return err
				}
			}
			_, err := unix.KeyctlInt(unix.KEYCTL_REVOKE, id, 0, 0, 0)
			return err
		}); err != nil {
			t.Fatalf("revoking: %v", err)
		}
	}
	revoke(unix.KEY_SPEC_USER_KEYRING, keyName(service, string(LoopbackToken)))
	wantAbsent(t, k, LoopbackToken)
	if err := k.Set(t.Context(), LoopbackToken, value); err != nil {
		t.Fatalf("set after the key was revoked: got %v, want no error", err)
	}
	wantValue(t, k, LoopbackToken, "value")

	if _, err := unix.KeyctlJoinSessionKeyring("companion-test-revoked"); err != nil {
		t.Fatal(err)
	}
	revoke(unix.KEY_SPEC_SESSION_KEYRING, "")
	wantValue(t, k, LoopbackToken, "value")

	revoke(unix.KEY_SPEC_USER_KEYRING, "")
	err := k.Set(t.Context(), LoopbackToken, value)
	wantReason(t, err, messages.ReasonKeychainUnavailable)
	_, _, err = k.Get(t.Context(), LoopbackToken)
	wantReason(t, err, messages.ReasonKeychainUnavailable)
	wantReason(t, k.Delete(t.Context(), LoopbackToken), messages.ReasonKeychainUnavailable)
}
