package keychain

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"companion/messages"
)

// kernelKeyring stores items as keys of type "user" in the user keyring (keyrings(7), user-keyring(7)): in kernel memory, not
// on disk, and lost at reboot. It is for machines without a desktop session, and is used only if the configuration names it
// (K2).
//
// Keys have the kernel's default permissions: only a process that possesses a key may read it. A process possesses the keys
// that are linked from its own keyrings. Whether these link to the user keyring depends on how the session began; in a systemd
// service they do not. So each call links the user keyring into the calling thread's keyring while it runs. Any process of the
// same user may do the same.
type kernelKeyring struct{}

const keyType = "user"

func keyName(service, account string) string {
	return fmt.Sprintf("companion:%s:%s", service, account)
}

func (kernelKeyring) get(_ context.Context, service, account string) (value string, err error) {
	err = withUserKeyring(func() error {
		id, err := searchKey(service, account)
		if err != nil {
			return err
		}
		// One byte more than MaxValue, to detect a value that is too long.
		buf := make([]byte, MaxValue+1)
		n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, buf, 0)
		if err != nil {
			return fmt.Errorf("reading the key: %w", err)
		}
		value = string(buf[:min(n, len(buf))])
		return nil
	})
	return value, kernelReason(err)
}

func (kernelKeyring) set(_ context.Context, service, account, value string) error {
	return kernelReason(withUserKeyring(func() error {
		_, err := unix.AddKey(keyType, keyName(service, account), []byte(value), unix.KEY_SPEC_USER_KEYRING)
		return ofKeyring("adding the key", err)
	}))
}

func (kernelKeyring) delete(_ context.Context, service, account string) error {
	return kernelReason(withUserKeyring(func() error {
		id, err := searchKey(service, account)
		if err != nil {
			return err
		}
		// Revoking makes the payload unreachable from every keyring that links the key, and frees its quota at once.
		// Invalidating would leave both to the kernel's garbage collector.
		if _, err := unix.KeyctlInt(unix.KEYCTL_REVOKE, id, 0, 0, 0); err != nil {
			return fmt.Errorf("revoking the key: %w", err)
		}
		if _, err := unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_KEYRING, 0, 0); err != nil {
			return fmt.Errorf("unlinking the key: %w", err)
		}
		return nil
	}))
}

func searchKey(service, account string) (int, error) {
	id, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, keyType, keyName(service, account), 0)
	if err != nil {
		return 0, fmt.Errorf("searching the key: %w", err)
	}
	return id, nil
}

// withUserKeyring runs f on a thread that possesses the user keyring.
func withUserKeyring(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, err := unix.KeyctlInt(unix.KEYCTL_LINK, unix.KEY_SPEC_USER_KEYRING, unix.KEY_SPEC_THREAD_KEYRING, 0, 0); err != nil {
		return ofKeyring("linking the user keyring", err)
	}
	defer func() {
		_, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, unix.KEY_SPEC_USER_KEYRING, unix.KEY_SPEC_THREAD_KEYRING, 0, 0)
	}()
	return f()
}

// ofKeyring adds what was done to an error about the user keyring. If it is revoked, expired or missing, the keychain is not
// available, although the kernel reports a missing key.
func ofKeyring(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOKEY), errors.Is(err, unix.EKEYREVOKED), errors.Is(err, unix.EKEYEXPIRED):
		return fail(messages.ReasonKeychainUnavailable, fmt.Errorf("%s: the user keyring: %w", doing, err))
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func kernelReason(err error) error {
	if f := (*failure)(nil); errors.As(err, &f) {
		return err
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOKEY), errors.Is(err, unix.EKEYREVOKED), errors.Is(err, unix.EKEYEXPIRED):
		return errAbsent
	case errors.Is(err, unix.EDQUOT): // the quota of the user's keys, by number or by bytes
		return fail(messages.ReasonKeychainFull, err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.E2BIG): // add_key(2): a payload beyond 32767 bytes
		return fail(messages.ReasonSecretTooLarge, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fail(messages.ReasonKeychainDenied, err)
	}
	return fail(messages.ReasonKeychainUnavailable, err)
}
