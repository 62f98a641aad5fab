package keychain

import "fmt"

// MayAsk says whether a quiet call can raise a dialog.
const MayAsk = false

func open(name string) (backEnd, error) {
	switch name {
	case BackendAuto, BackendSecretService:
		return secretService{}, nil
	case BackendKernelKeyring:
		return kernelKeyring{}, nil
	}
	return nil, fmt.Errorf("back end %q is not one of auto, secret-service, kernel-keyring", name)
}
