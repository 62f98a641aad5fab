package keychain

import (
	"context"
	"errors"
	"time"

	"github.com/godbus/dbus/v5"
)

// KeePassXC differs from other implementations of the Secret Service (src/fdosecrets of its source):
//
//   - It may ask the user whether a program may have an item (its setting ConfirmAccessItem, on by default). The answer is valid
//     for one connection to the bus, so the connection is kept. Items that a connection has made need no question.
//   - CreateItem always returns a prompt. For a new item it shows no dialog. For an item of another connection it asks the user
//     whatever the settings are, so existing items get their value by SetSecret.
//   - Delete may ask the user (ConfirmDeleteItem, on by default). Items are emptied instead, which needs no question.
//   - It may show a notification for each read. An item that was not modified is not read again.

// keePassXCName is the bus name of KeePassXC's main window. Its owner is KeePassXC.
const keePassXCName = "org.keepassxc.KeePassXC.MainWindow"

// keepassxc reports whether the service is KeePassXC.
func (v *vault) keepassxc() bool {
	if v.keePassXC == nil {
		owner := func(name string) (owner string) {
			_ = v.conn.BusObject().CallWithContext(v.ctx, "org.freedesktop.DBus.GetNameOwner", 0, name).Store(&owner)
			return owner
		}
		window := owner(keePassXCName)
		is := window != "" && window == owner(secretsName)
		v.keePassXC = &is
	}
	return *v.keePassXC
}

// take returns the kept connection, or a new one.
func (s *secretService) take(ctx context.Context) (*line, error) {
	s.mu.Lock()
	l := s.kept
	s.kept = nil
	s.mu.Unlock()
	if l == nil {
		return connect(ctx)
	}
	l.attach(ctx)
	if !l.conn.Connected() {
		l.close()
		return connect(ctx)
	}
	return l, nil
}

// giveBack ends the use of l by v. It keeps a connection to KeePassXC, and closes any other.
func (s *secretService) giveBack(l *line, v *vault) {
	if v.ctx.Err() != nil || !l.conn.Connected() || !v.keepassxc() {
		l.close()
		return
	}
	for _, path := range v.sessions {
		_ = v.conn.Object(secretsName, path).Call("org.freedesktop.Secret.Session.Close", dbus.FlagNoReplyExpected).Err
	}
	if !l.detach() { // the context has ended meanwhile
		l.close()
		return
	}
	s.mu.Lock()
	l, s.kept = s.kept, l
	s.mu.Unlock()
	if l != nil { // of an abandoned worker
		l.close()
	}
}

// unlockItems unlocks all items of the service, with one dialog.
func (v *vault) unlockItems(service string) error {
	items, err := v.search(map[string]string{"service": service})
	if err != nil {
		return err
	}
	return v.unlock(items...)
}

// replace replaces the value of an existing item. It reports false if there is none.
func (v *vault) replace(service, account string, value secret) (bool, error) {
	items, err := v.find(service, account)
	if errors.Is(err, errAbsent) {
		return false, nil
	}
	var locked bool
	if err == nil {
		err = v.property(items[0], secretsItem, "Locked", &locked)
	}
	if err == nil && locked {
		err = v.unlockItems(service)
	}
	if err != nil {
		return false, err
	}
	if err := v.call(items[0], secretsItem+".SetSecret", value).Err; err != nil {
		return false, storing(err)
	}
	return true, nil
}

// empty removes the value of an item, and leaves the item.
func (v *vault) empty(service, account string) error { return v.write(service, account, "") }

// seenItem is the loopback token as it was last read. Only that item is read regularly. Modified counts seconds, so an item is
// known only if it was read in a later second than the last change.
type seenItem struct {
	item     dbus.ObjectPath
	modified uint64
	value    string
}

// readOnce reads an item. If it is the loopback token and was not modified since it was last read, the value is the known one.
func (s *secretService) readOnce(v *vault, service, account string, item dbus.ObjectPath) (string, error) {
	if account != string(LoopbackToken) {
		return v.read(service, item)
	}
	now := seenItem{item: item}
	if err := v.property(item, secretsItem, "Modified", &now.modified); err != nil {
		return "", err
	}
	s.mu.Lock()
	seen := s.seen
	s.mu.Unlock()
	if now.item == seen.item && now.modified == seen.modified {
		return seen.value, nil
	}
	var err error
	if now.value, err = v.read(service, item); err != nil {
		return "", err
	}
	if uint64(time.Now().Unix()) > now.modified+1 {
		s.mu.Lock()
		s.seen = now
		s.mu.Unlock()
	}
	return now.value, nil
}
