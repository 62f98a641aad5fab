package keychain

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/godbus/dbus/v5"
	"github.com/zalando/go-keyring"

	"companion/messages"
)

// secretService is the freedesktop.org Secret Service (GNOME Keyring, KWallet), by way of
// go-keyring. The library waits for ever on a stopped service and on an unlock dialog, and starts a
// bus of its own when there is none; so each call first asks the same service the same things over a
// private connection that ends with the context, and unlocks there.
type secretService struct{}

const (
	secretsName    = "org.freedesktop.secrets"
	secretsPath    = dbus.ObjectPath("/org/freedesktop/secrets")
	secretsService = "org.freedesktop.Secret.Service"
	secretsPrompt  = "org.freedesktop.Secret.Prompt"
	// loginCollection is go-keyring's first choice; the default alias is its second.
	loginCollection = dbus.ObjectPath("/org/freedesktop/secrets/collection/login")
)

func (secretService) get(ctx context.Context, service, account string) (string, error) {
	if err := unlockSecrets(ctx); err != nil {
		return "", err
	}
	value, err := keyring.Get(service, account)
	return value, secretServiceReason(err)
}

func (secretService) set(ctx context.Context, service, account, value string) error {
	if err := unlockSecrets(ctx); err != nil {
		return err
	}
	return secretServiceReason(keyring.Set(service, account, value))
}

func (secretService) delete(ctx context.Context, service, account string) error {
	if err := unlockSecrets(ctx); err != nil {
		return err
	}
	return secretServiceReason(keyring.Delete(service, account))
}

// unlockSecrets makes sure that the service answers and that the collection which go-keyring uses is
// unlocked, asking the user where it is not, unless the call is a quiet one.
func unlockSecrets(ctx context.Context) error {
	conn, err := dbus.SessionBusPrivateNoAutoStartup(dbus.WithContext(ctx))
	if err != nil {
		return fail(messages.ReasonKeychainUnavailable, fmt.Errorf("connecting to the session bus: %w", err))
	}
	defer func() { _ = conn.Close() }()
	if err := conn.Auth(nil); err != nil {
		return orTimeout(ctx, fmt.Errorf("authenticating to the session bus: %w", err))
	}
	if err := conn.Hello(); err != nil {
		return orTimeout(ctx, fmt.Errorf("greeting the session bus: %w", err))
	}
	collection, err := findCollection(ctx, conn)
	if err != nil {
		return orTimeout(ctx, err)
	}
	var locked bool
	err = conn.Object(secretsName, collection).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0,
		"org.freedesktop.Secret.Collection", "Locked").Store(&locked)
	if err != nil {
		return orTimeout(ctx, fmt.Errorf("reading whether the collection is locked: %w", err))
	}
	if !locked {
		return nil
	}
	if IsQuiet(ctx) {
		return fail(messages.ReasonKeychainLocked, errors.New("it is locked, and nobody is asked"))
	}
	return unlock(ctx, conn, collection)
}

func findCollection(ctx context.Context, conn *dbus.Conn) (dbus.ObjectPath, error) {
	service := conn.Object(secretsName, secretsPath)
	var all []dbus.ObjectPath
	err := service.CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, secretsService, "Collections").Store(&all)
	if err != nil {
		return "", fmt.Errorf("reading the collections: %w", err)
	}
	if slices.Contains(all, loginCollection) {
		return loginCollection, nil
	}
	var path dbus.ObjectPath
	if err := service.CallWithContext(ctx, secretsService+".ReadAlias", 0, "default").Store(&path); err != nil {
		return "", fmt.Errorf("reading the default collection: %w", err)
	}
	if path == "/" {
		return "", errors.New("the secret service has no default collection")
	}
	return path, nil
}

// unlock asks the service to unlock, and the user through its prompt. Whatever ends it other than
// success is "locked": the dialog was dismissed, or nobody answered in time.
func unlock(ctx context.Context, conn *dbus.Conn, collection dbus.ObjectPath) error {
	var unlocked []dbus.ObjectPath
	var prompt dbus.ObjectPath
	err := conn.Object(secretsName, secretsPath).CallWithContext(ctx, secretsService+".Unlock", 0,
		[]dbus.ObjectPath{collection}).Store(&unlocked, &prompt)
	if err != nil {
		return fail(messages.ReasonKeychainLocked, fmt.Errorf("asking to unlock: %w", err))
	}
	if prompt == "/" {
		return nil
	}
	completed := make(chan *dbus.Signal, 1)
	conn.Signal(completed)
	err = conn.AddMatchSignalContext(ctx, dbus.WithMatchObjectPath(prompt), dbus.WithMatchInterface(secretsPrompt))
	if err == nil {
		err = conn.Object(secretsName, prompt).CallWithContext(ctx, secretsPrompt+".Prompt", 0, "").Err
	}
	if err != nil {
		return fail(messages.ReasonKeychainLocked, fmt.Errorf("prompting to unlock: %w", err))
	}
	for {
		select {
		case signal, open := <-completed:
			switch {
			case !open:
				return fail(messages.ReasonKeychainLocked, errors.New("the bus went away while the unlock dialog was open"))
			case signal.Path != prompt || signal.Name != secretsPrompt+".Completed":
				continue // the bus's own signals arrive here too
			case len(signal.Body) < 1 || signal.Body[0] != false:
				return fail(messages.ReasonKeychainLocked, errors.New("the unlock dialog was dismissed"))
			}
			return nil
		case <-ctx.Done():
			return fail(messages.ReasonKeychainLocked, ctx.Err())
		}
	}
}

// orTimeout tells a service that did not answer in time from one that answered with an error.
func orTimeout(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fail(messages.ReasonKeychainTimeout, err)
	}
	return secretServiceReason(err)
}

func secretServiceReason(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, keyring.ErrNotFound) {
		return errAbsent
	}
	var d dbus.Error
	if p := (*dbus.Error)(nil); errors.As(err, &p) {
		d = *p
	} else {
		_ = errors.As(err, &d)
	}
	switch d.Name {
	case "org.freedesktop.Secret.Error.IsLocked":
		return fail(messages.ReasonKeychainLocked, err)
	case "org.freedesktop.DBus.Error.AccessDenied", "org.freedesktop.DBus.Error.AuthFailed":
		return fail(messages.ReasonKeychainDenied, err)
	case "org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Timeout":
		return fail(messages.ReasonKeychainTimeout, err)
	case "org.freedesktop.DBus.Error.LimitsExceeded":
		return fail(messages.ReasonSecretTooLarge, err)
	}
	return fail(messages.ReasonKeychainUnavailable, err)
}
