package keychain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"companion/messages"
)

// secretService is the freedesktop.org Secret Service (GNOME Keyring, KeePassXC, KWallet). It implements the protocol itself,
// because go-keyring waits without limit for a stopped service and for a dialog, raises dialogs that the caller did not allow,
// crashes if the bus ends while a dialog is open, and sends secrets over the bus in plain text. Items have go-keyring's
// attributes, so that items stored by earlier versions are found.
//
// Each call uses its own connection, which is closed when the call ends. KeePassXC is an exception: see keepassxc_linux.go.
type secretService struct {
	mu   sync.Mutex
	kept *line // the connection to KeePassXC, or nil
	seen seenItem
}

const (
	secretsName       = "org.freedesktop.secrets"
	secretsPath       = dbus.ObjectPath("/org/freedesktop/secrets")
	secretsService    = "org.freedesktop.Secret.Service"
	secretsCollection = "org.freedesktop.Secret.Collection"
	secretsItem       = "org.freedesktop.Secret.Item"
	secretsPrompt     = "org.freedesktop.Secret.Prompt"
	noPrompt          = dbus.ObjectPath("/")
	// loginCollection is preferred to the default alias, as go-keyring does.
	loginCollection = dbus.ObjectPath("/org/freedesktop/secrets/collection/login")
)

// dismissWithin is how long the connection stays open after its call, to dismiss an open dialog.
const dismissWithin = 100 * time.Millisecond

func (s *secretService) get(ctx context.Context, service, account string) (value string, err error) {
	err = s.withVault(ctx, func(v *vault) error {
		items, err := v.find(service, account)
		if err != nil {
			return err
		}
		if v.keepassxc() {
			value, err = s.readOnce(v, service, account, items[0])
		} else {
			value, err = v.read(service, items[0])
		}
		return err
	})
	if err == nil && value == "" { // see empty
		err = errAbsent
	}
	return value, err
}

func (s *secretService) set(ctx context.Context, service, account, value string) error {
	return s.withVault(ctx, func(v *vault) error { return v.write(service, account, value) })
}

func (s *secretService) delete(ctx context.Context, service, account string) error {
	return s.withVault(ctx, func(v *vault) error {
		items, err := v.find(service, account)
		if err != nil {
			return err
		}
		if v.keepassxc() {
			return v.empty(service, account)
		}
		for _, item := range items {
			var prompt dbus.ObjectPath
			if err := v.call(item, secretsItem+".Delete").Store(&prompt); err != nil {
				return fmt.Errorf("deleting the item: %w", err)
			}
			if err := v.answer(prompt, messages.ReasonKeychainDenied); err != nil {
				return err
			}
		}
		return nil
	})
}

// vault is one connection to the service with its collection unlocked.
type vault struct {
	ctx        context.Context
	conn       *dbus.Conn
	collection dbus.ObjectPath
	sessions   []dbus.ObjectPath // open
	keePassXC  *bool             // nil until keepassxc has asked
}

// withVault runs use on an unlocked collection. If the collection is locked and ctx allows a dialog, it raises the unlock
// dialog.
func (s *secretService) withVault(ctx context.Context, use func(*vault) error) error {
	l, err := s.take(ctx)
	if err != nil {
		return err
	}
	v := &vault{ctx: ctx, conn: l.conn}
	if err = v.alive(); err == nil {
		err = v.open()
	}
	if err == nil {
		err = use(v)
	}
	s.giveBack(l, v)
	return reasoned(ctx, err)
}

// line is a connection to the session bus, which closes soon after the context of its call has ended.
type line struct {
	conn   *dbus.Conn
	cancel context.CancelFunc // closes it
	detach func() bool        // from that context
}

func (l *line) attach(ctx context.Context) {
	l.detach = context.AfterFunc(ctx, func() { time.AfterFunc(dismissWithin, l.cancel) })
}

func (l *line) close() {
	l.detach()
	_ = l.conn.Close()
	l.cancel()
}

// connect makes a private connection to the session bus. It does not start a bus.
func connect(ctx context.Context) (*line, error) {
	connCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l := &line{cancel: cancel}
	l.attach(ctx)
	var err error
	l.conn, err = dbus.SessionBusPrivateNoAutoStartup(dbus.WithContext(connCtx))
	if err != nil {
		l.detach()
		cancel()
		return nil, fail(messages.ReasonKeychainUnavailable, fmt.Errorf("connecting to the session bus: %w", err))
	}
	if err = l.conn.Auth(nil); err == nil {
		err = l.conn.Hello()
	}
	if err != nil {
		l.close()
		return nil, reasoned(ctx, fmt.Errorf("greeting the session bus: %w", err))
	}
	return l, nil
}

func (v *vault) call(path dbus.ObjectPath, method string, args ...any) *dbus.Call {
	return v.conn.Object(secretsName, path).CallWithContext(v.ctx, method, 0, args...)
}

func (v *vault) property(path dbus.ObjectPath, iface, name string, into any) error {
	if err := v.call(path, "org.freedesktop.DBus.Properties.Get", iface, name).Store(into); err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	return nil
}

// open finds the collection and unlocks it.
func (v *vault) open() error {
	locked, err := v.look()
	if err != nil || !locked {
		return err
	}
	return v.unlock(v.collection)
}

// look finds the collection and whether it is locked, without a dialog.
func (v *vault) look() (locked bool, err error) {
	var all []dbus.ObjectPath
	if err := v.property(secretsPath, secretsService, "Collections", &all); err != nil {
		return false, err
	}
	v.collection = loginCollection
	if !slices.Contains(all, loginCollection) {
		if err := v.call(secretsPath, secretsService+".ReadAlias", "default").Store(&v.collection); err != nil {
			return false, fmt.Errorf("reading the default collection: %w", err)
		}
	}
	if v.collection == "/" {
		return false, fail(messages.ReasonKeychainNoCollection, errors.New("the service has no default collection"))
	}
	err = v.property(v.collection, secretsCollection, "Locked", &locked)
	return locked, err
}

// unlock asks the service to unlock a collection or items, which may raise one dialog. If the dialog is dismissed or not
// answered in time, the objects stay locked.
func (v *vault) unlock(objects ...dbus.ObjectPath) error {
	if !takeDialog(v.ctx) {
		return fail(messages.ReasonKeychainLocked, errors.New("it is locked, and this call must not ask"))
	}
	var unlocked []dbus.ObjectPath
	var prompt dbus.ObjectPath
	if err := v.call(secretsPath, secretsService+".Unlock", objects).Store(&unlocked, &prompt); err != nil {
		return fail(messages.ReasonKeychainLocked, fmt.Errorf("asking to unlock: %w", err))
	}
	if prompt == noPrompt {
		return nil
	}
	return v.ask(prompt, messages.ReasonKeychainLocked)
}

// answer completes a call that may need a dialog. If no dialog is allowed, the call has no effect, and the result is
// keychain_locked.
func (v *vault) answer(prompt dbus.ObjectPath, dismissed messages.Reason) error {
	if prompt == noPrompt || prompt == "" {
		return nil
	}
	if !takeDialog(v.ctx) {
		_ = v.conn.Object(secretsName, prompt).Call(secretsPrompt+".Dismiss", dbus.FlagNoReplyExpected).Err
		return fail(messages.ReasonKeychainLocked, errors.New("the service wants to ask the user, and this call must not ask"))
	}
	return v.ask(prompt, dismissed)
}

// ask raises a dialog of the service and waits for its result. dismissed is the reason if the user refuses or does not answer.
func (v *vault) ask(prompt dbus.ObjectPath, dismissed messages.Reason) error {
	// godbus drops signals that do not fit.
	signals := make(chan *dbus.Signal, 64)
	v.conn.Signal(signals)
	defer v.conn.RemoveSignal(signals)
	completed := []dbus.MatchOption{dbus.WithMatchObjectPath(prompt), dbus.WithMatchInterface(secretsPrompt)}
	err := v.conn.AddMatchSignalContext(v.ctx, completed...)
	if err == nil {
		err = v.conn.AddMatchSignalContext(v.ctx, matchOwner()...)
	}
	defer func() {
		_ = v.conn.RemoveMatchSignalContext(v.ctx, completed...)
		_ = v.conn.RemoveMatchSignalContext(v.ctx, matchOwner()...)
	}()
	if err == nil {
		err = v.call(prompt, secretsPrompt+".Prompt", "").Err
	}
	if err != nil {
		return fmt.Errorf("showing the dialog: %w", err) // the service failed; the user refused nothing
	}
	for {
		select {
		case signal, open := <-signals:
			switch {
			case !open || signal == nil:
				return fail(messages.ReasonKeychainUnavailable, errors.New("the bus went away while the dialog was open"))
			case serviceLeft(signal):
				return fail(messages.ReasonKeychainUnavailable, errors.New("the service went away while the dialog was open"))
			case signal.Path != prompt || signal.Name != secretsPrompt+".Completed":
				continue
			case len(signal.Body) < 1 || signal.Body[0] != false:
				return fail(dismissed, errors.New("the dialog was dismissed"))
			}
			return nil
		case <-v.ctx.Done():
			_ = v.conn.Object(secretsName, prompt).Call(secretsPrompt+".Dismiss", dbus.FlagNoReplyExpected).Err
			return fail(dismissed, v.ctx.Err())
		}
	}
}

// matchOwner matches the signal that the service has started or ended.
func matchOwner() []dbus.MatchOption {
	return []dbus.MatchOption{
		dbus.WithMatchInterface("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, secretsName),
	}
}

// serviceLeft reports whether signal says that the service has ended: its bus name has no owner.
func serviceLeft(signal *dbus.Signal) bool {
	return signal.Name == "org.freedesktop.DBus.NameOwnerChanged" && len(signal.Body) == 3 && signal.Body[0] == secretsName && signal.Body[2] == ""
}

func attributes(service, account string) map[string]string {
	return map[string]string{"username": account, "service": service}
}

// find returns the items of the account, at least one, or errAbsent.
func (v *vault) find(service, account string) ([]dbus.ObjectPath, error) {
	return v.search(attributes(service, account))
}

// search returns the items with these attributes, at least one, or errAbsent.
func (v *vault) search(attributes map[string]string) ([]dbus.ObjectPath, error) {
	var items []dbus.ObjectPath
	if err := v.call(v.collection, secretsCollection+".SearchItems", attributes).Store(&items); err != nil {
		return nil, fmt.Errorf("searching the item: %w", err)
	}
	if len(items) == 0 {
		return nil, errAbsent
	}
	return items, nil
}

// secret is the Secret structure of the protocol.
type secret struct {
	Session     dbus.ObjectPath
	Parameters  []byte
	Value       []byte
	ContentType string
}

func (v *vault) read(service string, item dbus.ObjectPath) (string, error) {
	s, err := v.openSession()
	if err != nil {
		return "", err
	}
	var got secret
	err = v.call(item, secretsItem+".GetSecret", s.path).Store(&got)
	if errorName(err) == errLockedName { // KeePassXC locks single items
		if err := v.unlockItems(service); err != nil {
			return "", err
		}
		err = v.call(item, secretsItem+".GetSecret", s.path).Store(&got)
	}
	if err != nil {
		return "", fmt.Errorf("reading the item: %w", err)
	}
	value, err := s.decrypt(got)
	return string(value), err
}

func (v *vault) write(service, account, value string) error {
	s, err := v.openSession()
	if err != nil {
		return err
	}
	encrypted, err := s.encrypt([]byte(value))
	if err != nil {
		return err
	}
	if v.keepassxc() {
		if done, err := v.replace(service, account, encrypted); done || err != nil {
			return err
		}
	}
	properties := map[string]dbus.Variant{
		secretsItem + ".Label":      dbus.MakeVariant(service + ": " + account),
		secretsItem + ".Attributes": dbus.MakeVariant(attributes(service, account)),
	}
	var item, prompt dbus.ObjectPath
	if err := v.call(v.collection, secretsCollection+".CreateItem", properties, encrypted, true).Store(&item, &prompt); err != nil {
		return storing(err)
	}
	if prompt != noPrompt && v.keepassxc() { // a new item needs no dialog
		return v.ask(prompt, messages.ReasonKeychainDenied)
	}
	return v.answer(prompt, messages.ReasonKeychainDenied)
}

// storing explains the failure of the call that carries the value. For a call without a value the same D-Bus error means that the
// user has too many connections, for example.
func storing(err error) error {
	if errorName(err) == "org.freedesktop.DBus.Error.LimitsExceeded" {
		return fail(messages.ReasonSecretTooLarge, err)
	}
	return fmt.Errorf("storing the item: %w", err)
}

const errLockedName = "org.freedesktop.Secret.Error.IsLocked"

// errorName is the D-Bus name of err, or empty.
func errorName(err error) string {
	var d dbus.Error
	if p := (*dbus.Error)(nil); errors.As(err, &p) {
		return p.Name
	}
	if errors.As(err, &d) {
		return d.Name
	}
	return ""
}

// reasoned adds the reason to err. It distinguishes a service that does not answer in time from one that answers with an
// error.
func reasoned(ctx context.Context, err error) error {
	var f *failure
	switch {
	case err == nil, errors.Is(err, errAbsent), errors.As(err, &f):
		return err
	case ctx.Err() != nil:
		return fail(messages.ReasonKeychainTimeout, err)
	}
	switch errorName(err) {
	case errLockedName:
		return fail(messages.ReasonKeychainLocked, err)
	case "org.freedesktop.DBus.Error.AccessDenied", "org.freedesktop.DBus.Error.AuthFailed":
		return fail(messages.ReasonKeychainDenied, err)
	case "org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Timeout":
		return fail(messages.ReasonKeychainTimeout, err)
	}
	return fail(messages.ReasonKeychainUnavailable, err)
}
