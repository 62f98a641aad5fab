package keychain

import (
	"context"
	"errors"
	"time"

	"github.com/godbus/dbus/v5"
)

// watchPause is how long Watch waits before it connects to the bus again.
const watchPause = 5 * time.Second

// Watch calls changed when the Secret Service has come, gone, been locked or been unlocked, or has got a default collection,
// until ctx ends. Signals of other kinds, such as those of our own writes, call nothing. Other back ends have no such signals:
// then Watch waits for the end of ctx.
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

// watchBus watches over one connection and returns the last state.
func watchBus(ctx context.Context, last string, changed func()) string {
	conn, end, err := connect(ctx)
	if err != nil {
		return "no bus"
	}
	defer end()
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

// drain takes what has piled up: one look answers all of it.
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

// state is what a quiet call would meet: "absent", "unlocked", or the reason of its failure. It starts no service.
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
