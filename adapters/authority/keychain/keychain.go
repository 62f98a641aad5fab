// Package keychain keeps the user's four secrets in the operating system's keychain (contract K).
//
// There are four accounts and three operations, and nothing else: no list, no search, no dump. The
// back end is named by the configuration and never replaced by another (K3): when it is absent,
// locked or refuses, the caller gets an *Error with the reason, and what depends on it stops. A
// missing item is a normal answer (found false), told apart from a failing back end (K4).
//
// Every call runs on one worker per Keychain with a deadline (K7). One, so that a slow write can
// never overtake or undo a later one; with a deadline, so that a stopped service or an unlock dialog
// hangs nobody. A write whose caller has given up may still happen, always before the next call.
package keychain

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"companion/messages"
)

// Account names one of the four items (K1).
type Account string

// The four accounts.
const (
	AccessToken     Account = "access-token"
	RefreshToken    Account = "refresh-token"
	SessionMetadata Account = "session-metadata"
	LoopbackToken   Account = "loopback-token"
)

// MaxValue is the largest value, in bytes (K1).
const MaxValue = 8192

// Back ends as the configuration names them.
const (
	BackendAuto          = "auto" // the platform's own; never another one instead
	BackendSecretService = "secret-service"
	BackendKernelKeyring = "kernel-keyring"
	BackendMacOS         = "macos"
	BackendWindows       = "windows"
)

// defaultTimeout leaves a person time to type a password into an unlock dialog.
const defaultTimeout = 30 * time.Second

// grace is what a back end gets, after its deadline, to say why it was late: "locked" helps the user
// more than "timed out".
const grace = 250 * time.Millisecond

// Options says where the secrets are.
type Options struct {
	Backend string // one of the Backend constants
	Service string // names this companion's items among others' in the same keychain
	// Timeout bounds each call; zero means 30 s.
	Timeout time.Duration
}

type quiet struct{}

// Quiet returns a context under which no call asks a person to unlock: the answer is keychain_locked. Only
// macOS cannot tell beforehand; see MayAsk.
func Quiet(ctx context.Context) context.Context { return context.WithValue(ctx, quiet{}, true) }

// IsQuiet reports whether ctx comes from Quiet.
func IsQuiet(ctx context.Context) bool { return ctx.Value(quiet{}) != nil }

// Error says why the keychain could not answer. Its text holds neither value nor back-end text; the
// cause is there for errors.Is.
type Error struct {
	Op      string // "get", "set" or "delete"
	Account Account
	Reason  messages.Reason
	cause   error
}

func (e *Error) Error() string {
	return fmt.Sprintf("keychain: %s %s: %s", e.Op, e.Account, e.Reason)
}

func (e *Error) Unwrap() error { return e.cause }

// ReasonOf returns the reason of a keychain error: ReasonOK for nil, ReasonKeychainUnavailable for
// an error of another kind.
func ReasonOf(err error) messages.Reason {
	var e *Error
	switch {
	case err == nil:
		return messages.ReasonOK
	case errors.As(err, &e):
		return e.Reason
	}
	return messages.ReasonKeychainUnavailable
}

// errAbsent is a back end's "no such item".
var errAbsent = errors.New("no such item")

// failure is how a back end names its reason.
type failure struct {
	reason messages.Reason
	cause  error
}

func (f *failure) Error() string { return string(f.reason) }
func (f *failure) Unwrap() error { return f.cause }

func fail(reason messages.Reason, cause error) error { return &failure{reason, cause} }

// backEnd is one keychain. Calls never overlap. Where it can it ends with ctx; where it cannot (a
// library without time-outs) it stays behind on the worker. set replaces; get and delete answer
// errAbsent for a missing item; other errors are a *failure.
type backEnd interface {
	get(ctx context.Context, service, account string) (string, error)
	set(ctx context.Context, service, account, value string) error
	delete(ctx context.Context, service, account string) error
}

// Keychain is one service's four items. Safe for concurrent use.
type Keychain struct {
	service string
	timeout time.Duration
	back    backEnd
	worker  chan struct{} // holds one element while a call runs
}

// Open picks the back end that the options name. A back end that this platform lacks is an *Error
// with ReasonKeychainUnavailable; a service that is not there shows at the first call.
func Open(o Options) (*Keychain, error) {
	if o.Service == "" {
		return nil, &Error{Op: "open", Reason: messages.ReasonKeychainUnavailable, cause: errors.New("no service name")}
	}
	back, err := open(o.Backend)
	if err != nil {
		return nil, &Error{Op: "open", Reason: messages.ReasonKeychainUnavailable, cause: err}
	}
	return newKeychain(back, o), nil
}

func newKeychain(back backEnd, o Options) *Keychain {
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	return &Keychain{service: o.Service, timeout: o.Timeout, back: back, worker: make(chan struct{}, 1)}
}

// Get returns the item; found is false when there is none. A stored value outside the bounds of K1 is
// ReasonInvalidSecret.
func (k *Keychain) Get(ctx context.Context, account Account) (messages.Secret, bool, error) {
	var value string
	err := k.run(ctx, "get", account, func(ctx context.Context) error {
		var err error
		value, err = k.back.get(ctx, k.service, string(account))
		return err
	})
	if errors.Is(err, errAbsent) {
		return messages.Secret{}, false, nil
	}
	if err == nil && checkValue(value) != messages.ReasonOK {
		err = &Error{Op: "get", Account: account, Reason: messages.ReasonInvalidSecret}
	}
	if err != nil {
		return messages.Secret{}, false, err
	}
	return messages.NewSecret(value), true, nil
}

// Set stores the item and reads it back: a dismissed dialog can look like success (K7).
func (k *Keychain) Set(ctx context.Context, account Account, secret messages.Secret) error {
	value := secret.Reveal()
	if reason := checkValue(value); reason != messages.ReasonOK {
		return &Error{Op: "set", Account: account, Reason: reason}
	}
	return k.run(ctx, "set", account, func(ctx context.Context) error {
		if err := k.back.set(ctx, k.service, string(account), value); err != nil {
			return err
		}
		got, err := k.back.get(ctx, k.service, string(account))
		if errors.Is(err, errAbsent) || err == nil && !equal(got, value) {
			return fail(messages.ReasonKeychainDenied, errors.New("the value did not read back"))
		}
		return err
	})
}

// Delete removes the item; a missing one is no error.
func (k *Keychain) Delete(ctx context.Context, account Account) error {
	err := k.run(ctx, "delete", account, func(ctx context.Context) error {
		return k.back.delete(ctx, k.service, string(account))
	})
	if errors.Is(err, errAbsent) {
		return nil
	}
	return err
}

// run puts call on the worker and waits for it, within the deadline.
func (k *Keychain) run(ctx context.Context, op string, account Account, call func(context.Context) error) error {
	known := []Account{AccessToken, RefreshToken, SessionMetadata, LoopbackToken}
	if !slices.Contains(known, account) {
		return &Error{Op: op, Reason: messages.ReasonUnknownAccount}
	}
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	timedOut := func() error {
		return &Error{Op: op, Account: account, Reason: messages.ReasonKeychainTimeout, cause: context.Cause(ctx)}
	}
	select {
	case k.worker <- struct{}{}:
	case <-ctx.Done():
		return timedOut()
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-k.worker }()
		done <- call(ctx)
	}()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		select {
		case err = <-done:
		case <-time.After(grace):
			return timedOut()
		}
	}
	return wrap(op, account, err)
}

func wrap(op string, account Account, err error) error {
	if err == nil || errors.Is(err, errAbsent) {
		return err
	}
	reason := messages.ReasonKeychainUnavailable
	var f *failure
	switch {
	case errors.As(err, &f):
		reason = f.reason
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		reason = messages.ReasonKeychainTimeout
	}
	return &Error{Op: op, Account: account, Reason: reason, cause: err}
}

func checkValue(value string) messages.Reason {
	switch {
	case len(value) > MaxValue:
		return messages.ReasonSecretTooLarge
	case value == "" || !utf8.ValidString(value):
		return messages.ReasonInvalidSecret
	}
	return messages.ReasonOK
}

// equal compares digests, so that neither content nor length is an oracle.
func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}
