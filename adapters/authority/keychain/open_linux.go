package keychain

import "fmt"

// AsksByItself says whether the back end raises dialogs that the caller did not allow.
const AsksByItself = false

func open(name string) (backEnd, error) {
	switch name {
	case BackendAuto, BackendSecretService:
		return &secretService{}, nil
	case BackendKernelKeyring:
		return kernelKeyring{}, nil
	}
	return nil, fmt.Errorf("back end %q is not one of auto, secret-service, kernel-keyring", name)
}
