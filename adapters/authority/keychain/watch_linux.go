package keychain

import (
	"context"
	"errors"
	"time"

	"github.com/godbus/dbus/v5"
)

// watchPause is how long Watch waits before it connects to the bus again.
const watchPause = 5 * time.Second

// Watch calls changed when the Secret Service has started, ended, been locked or unlocked, or got a default collection, until
// ctx ends. Other signals, such as those of our own writes, are ignored. Other back ends have no signals; for them Watch only
// waits for the end of ctx.
func Watch(ctx context.Context, backend string, changed func()) {
	if backend != BackendAuto && backend != BackendSecretService {
		<-ctx.Done()
		return
	}
	last := ""
	for ctx.Err() == nil {
		last = watchBus(ctx, last, changed)
		pause := time.NewTimer(watchPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
}

// watchBus watches the service on one connection and returns the last state.
func watchBus(ctx context.Context, last string, changed func()) string {
	l, err := connect(ctx)
	if err != nil {
		return "no bus"
	}
	defer l.close()
	conn := l.conn
	signals := make(chan *dbus.Signal, 64)
	conn.Signal(signals)
	err = errors.Join(
		conn.AddMatchSignalContext(ctx, dbus.WithMatchSender(secretsName), dbus.WithMatchPathNamespace(secretsPath)),
		conn.AddMatchSignalContext(ctx, matchOwner()...),
	)
	if err != nil {
		return "no bus"
	}
	for {
		if now := state(ctx, conn); now != last {
			if last != "" {
				changed()
			}
			last = now
		}
		select {
		case signal, open := <-signals:
			if !open || signal == nil {
				return "no bus"
			}
		case <-ctx.Done():
			return last
		}
		drain(signals)
	}
}

// drain discards the queued signals: one check of the state covers all of them.
func drain(signals <-chan *dbus.Signal) {
	for {
		select {
		case _, open := <-signals:
			if !open {
				return
			}
		default:
			return
		}
	}
}

// state returns the state that a call without a dialog would find: "absent", "unlocked", or the reason of its failure. It does
// not start the service.
func state(ctx context.Context, conn *dbus.Conn) string {
	ctx, cancel := context.WithTimeout(ctx, watchPause)
	defer cancel()
	var owned bool
	if err := conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, secretsName).Store(&owned); err != nil || !owned {
		return "absent"
	}
	v := &vault{ctx: ctx, conn: conn}
	locked, err := v.look()
	switch {
	case err != nil:
		return string(ReasonOf(wrap("get", "", reasoned(ctx, err))))
	case locked:
		return "locked"
	}
	return "unlocked"
}
