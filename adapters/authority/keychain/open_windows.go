package keychain

import (
	"context"
	"errors"
	"fmt"

	"github.com/zalando/go-keyring"
	"golang.org/x/sys/windows"

	"companion/messages"
)

// AsksByItself says whether the back end raises dialogs that the caller did not allow.
const AsksByItself = false

func open(name string) (backEnd, error) {
	switch name {
	case BackendAuto, BackendWindows:
		return credentialManager{}, nil
	}
	return nil, fmt.Errorf("back end %q is not one of auto, windows", name)
}

// credentialManager is the Windows Credential Manager (DPAPI, per user and machine), through go-keyring. A value has at most
// 2560 bytes. It is tested under Wine, not on a real machine.
type credentialManager struct{}

func (credentialManager) get(_ context.Context, service, account string) (string, error) {
	value, err := keyring.Get(service, account)
	return value, windowsReason(err)
}

func (credentialManager) set(_ context.Context, service, account, value string) error {
	return windowsReason(keyring.Set(service, account, value))
}

func (credentialManager) delete(_ context.Context, service, account string) error {
	return windowsReason(keyring.Delete(service, account))
}

func windowsReason(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, keyring.ErrNotFound):
		return errAbsent
	case errors.Is(err, keyring.ErrSetDataTooBig):
		return fail(messages.ReasonSecretTooLarge, err)
	case errors.Is(err, windows.ERROR_ACCESS_DENIED):
		return fail(messages.ReasonKeychainDenied, err)
	}
	return fail(messages.ReasonKeychainUnavailable, err)
}
