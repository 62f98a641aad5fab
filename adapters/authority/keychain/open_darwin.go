package keychain

import (
	"context"
	"errors"
	"fmt"
	"os/exec"

	"github.com/zalando/go-keyring"

	"companion/messages"
)

// AsksByItself says whether the back end raises dialogs that the caller did not allow. The system's tool does when the
// keychain is locked.
const AsksByItself = true

func open(name string) (backEnd, error) {
	switch name {
	case BackendAuto, BackendMacOS:
		return macOS{}, nil
	}
	return nil, fmt.Errorf("back end %q is not one of auto, macos", name)
}

// macOS is the login keychain, through go-keyring and the system's security tool. It is compiled, but untested on a real
// machine.
type macOS struct{}

// maxMacOSValue keeps the command that go-keyring writes to the tool, including base64 and account, below the tool's line
// limit of 4096 bytes. It is checked here because go-keyring checks only after it has started the tool, and then does not end
// it.
const maxMacOSValue = 2800

func (macOS) get(_ context.Context, service, account string) (string, error) {
	value, err := keyring.Get(service, account)
	return value, macOSReason(err)
}

func (macOS) set(_ context.Context, service, account, value string) error {
	if len(value)+len(service)+len(account) > maxMacOSValue {
		return fail(messages.ReasonSecretTooLarge, nil)
	}
	return macOSReason(keyring.Set(service, account, value))
}

func (macOS) delete(_ context.Context, service, account string) error {
	return macOSReason(keyring.Delete(service, account))
}

// macOSReason maps the tool's exit status, which is the low byte of the Security framework's OSStatus, to a reason.
func macOSReason(err error) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, keyring.ErrNotFound):
		return errAbsent
	case errors.Is(err, keyring.ErrSetDataTooBig):
		return fail(messages.ReasonSecretTooLarge, err)
	case !errors.As(err, &exit):
		return fail(messages.ReasonKeychainUnavailable, err)
	}
	switch exit.ExitCode() {
	case 44: // errSecItemNotFound
		return errAbsent
	case 36: // errSecInteractionNotAllowed: locked, and no user to ask
		return fail(messages.ReasonKeychainLocked, err)
	case 51, 128: // errSecAuthFailed, userCanceledErr
		return fail(messages.ReasonKeychainDenied, err)
	}
	return fail(messages.ReasonKeychainUnavailable, err)
}
