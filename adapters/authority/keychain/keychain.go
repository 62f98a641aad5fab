// Package keychain stores the user's secrets in the operating system's keychain (contract K).
//
// There is a fixed list of accounts, and there are three operations: no list, no search, no dump. The configuration names the back end; no other
// one replaces it (K3). If the back end is absent, locked or refuses, the caller gets an *Error with the reason. A missing item
// is a normal answer (found false), distinct from a failing back end (K4).
//
// A call raises no dialog unless its context comes from Ask, which allows one.
//
// Calls run one at a time, on a worker with a deadline (K7): a slow write does not overtake or undo a later one, and a stopped
// service or an open dialog does not block the caller. A worker whose call hangs long after its deadline is abandoned and
// replaced. A panic in the back end's library is returned as the error of that call.
package keychain

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"companion/messages"
)

// Account names one of the items (K1).
type Account string

// The accounts of the session and of the endpoint.
const (
	AccessToken     Account = "access-token"
	RefreshToken    Account = "refresh-token"
	SessionMetadata Account = "session-metadata"
	LoopbackToken   Account = "loopback-token"
)

// Revocations are the accounts of refresh tokens that the hub has not revoked yet (K8).
var Revocations = [messages.PendingRevocations]Account{"revocation-1", "revocation-2", "revocation-3", "revocation-4"}

// Accounts returns every account.
func Accounts() []Account {
	return append([]Account{AccessToken, RefreshToken, SessionMetadata, LoopbackToken}, Revocations[:]...)
}

// MaxValue is the largest value, in bytes (K1).
const MaxValue = 8192

// Back ends as the configuration names them.
const (
	BackendAuto          = "auto" // the platform's default, without fallback
	BackendSecretService = "secret-service"
	BackendKernelKeyring = "kernel-keyring"
	BackendMacOS         = "macos"
	BackendWindows       = "windows"
)

// defaultTimeout leaves the user time to type a password into an unlock dialog.
const defaultTimeout = 30 * time.Second

// grace is the time after its deadline in which a back end may still return its own error: "locked" helps the user more than
// "timed out".
const grace = 250 * time.Millisecond

// Options are the inputs of Open.
type Options struct {
	Backend string // one of the Backend constants
	Service string // the name of this companion's items in the keychain
	// Timeout bounds each call; zero means 30 s.
	Timeout time.Duration
	// Panicked, if not nil, is called after a panic in the back end. value is the text of a runtime error, or only the type of
	// any other value, whose text could quote a secret. Panicked must not block.
	Panicked func(value string, stack []byte)
}

// Error says why a keychain call failed. Its text contains neither the value nor text of the back end; errors.Is matches the
// cause.
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

// ReasonOf returns the reason of a keychain error: ReasonOK for nil and for a missing item, ReasonKeychainUnavailable for any
// other error.
func ReasonOf(err error) messages.Reason {
	var e *Error
	switch {
	case err == nil, errors.Is(err, errAbsent):
		return messages.ReasonOK
	case errors.As(err, &e):
		return e.Reason
	}
	return messages.ReasonKeychainUnavailable
}

// errAbsent is the error of a back end for a missing item.
var errAbsent = errors.New("no such item")

// failure is an error of a back end with its reason.
type failure struct {
	reason messages.Reason
	cause  error
}

func (f *failure) Error() string { return string(f.reason) }
func (f *failure) Unwrap() error { return f.cause }

func fail(reason messages.Reason, cause error) error { return &failure{reason, cause} }

// backEnd is one keychain. Calls do not overlap, unless a worker was abandoned. A call ends with ctx if the library supports
// that; otherwise it goes on, on its worker. set replaces an item; get and delete return errAbsent for a missing one; other
// errors are a *failure. A dialog may be raised only after takeDialog.
type backEnd interface {
	get(ctx context.Context, service, account string) (string, error)
	set(ctx context.Context, service, account, value string) error
	delete(ctx context.Context, service, account string) error
}

// Keychain gives access to the items of one service. It is safe for concurrent use.
type Keychain struct {
	service  string
	timeout  time.Duration
	back     backEnd
	panicked func(value string, stack []byte)
	// asksByItself means that the back end raises dialogs without takeDialog.
	asksByItself bool

	mu      sync.Mutex
	worker  *worker
	givenUp int             // abandoned workers that still hang
	locked  messages.Reason // the last result, if a dialog could change it
}

// worker runs one call at a time.
type worker struct {
	slot  chan struct{} // holds one element while a call runs
	since time.Time     // start of that call; guarded by Keychain.mu
}

func newWorker() *worker { return &worker{slot: make(chan struct{}, 1)} }

const (
	// giveUpAfter is the number of deadlines after which the worker of a hanging call is replaced. A write of the old worker
	// may then take effect after a later one, so the limit is longer than any back end that is only slow.
	giveUpAfter = 3
	// maxGivenUp bounds the goroutines and threads that hang.
	maxGivenUp = 4
)

// Open returns the keychain that o names. A back end that this platform lacks is an *Error with ReasonKeychainUnavailable; if
// the service does not run, the first call fails.
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
	return &Keychain{
		service: o.Service, timeout: o.Timeout, back: back, panicked: o.Panicked, asksByItself: AsksByItself, worker: newWorker(),
	}
}

// Get returns the item; found is false if there is none. A stored value outside the bounds of K1 is an *Error with
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
		err := k.back.set(ctx, k.service, string(account), value)
		if errors.Is(err, errAbsent) { // ReasonOf would take it for success
			return fail(messages.ReasonKeychainUnavailable, errors.New("a missing item, while storing"))
		}
		if err != nil {
			return err
		}
		got, err := k.back.get(ctx, k.service, string(account))
		if errors.Is(err, errAbsent) || err == nil && !equal(got, value) {
			return fail(messages.ReasonKeychainDenied, errors.New("the value did not read back"))
		}
		return err
	})
}

// Delete removes the item; a missing item is not an error.
func (k *Keychain) Delete(ctx context.Context, account Account) error {
	err := k.run(ctx, "delete", account, func(ctx context.Context) error {
		return k.back.delete(ctx, k.service, string(account))
	})
	if errors.Is(err, errAbsent) {
		return nil
	}
	return err
}

// run executes call on the worker and waits for it until the deadline.
func (k *Keychain) run(ctx context.Context, op string, account Account, call func(context.Context) error) error {
	if !slices.Contains(Accounts(), account) {
		return &Error{Op: op, Reason: messages.ReasonUnknownAccount}
	}
	if reason := k.spare(ctx); reason != "" {
		return &Error{Op: op, Account: account, Reason: reason}
	}
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	timedOut := func() error {
		return &Error{Op: op, Account: account, Reason: messages.ReasonKeychainTimeout, cause: context.Cause(ctx)}
	}
	w := k.acquire(ctx)
	if w == nil {
		return timedOut()
	}
	done := make(chan error, 1)
	go func() {
		defer k.release(w)
		done <- k.contain(ctx, call)
	}()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		late := time.NewTimer(grace)
		defer late.Stop()
		select {
		case err = <-done:
		case <-late.C:
			return timedOut()
		}
	}
	err = wrap(op, account, err)
	k.remember(ReasonOf(err))
	return err
}

// contain turns a panic of the back end into an error.
func (k *Keychain) contain(ctx context.Context, call func(context.Context) error) (err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		value := fmt.Sprintf("%T", p)
		if e, ok := p.(runtime.Error); ok {
			value = e.Error()
		}
		if k.panicked != nil {
			k.panicked(value, debug.Stack())
		}
		err = fail(messages.ReasonKeychainUnavailable, errors.New("the keychain's library panicked: "+value))
	}()
	return call(ctx)
}

// acquire waits for the worker and returns it, or nil if ctx has ended.
func (k *Keychain) acquire(ctx context.Context) *worker {
	for {
		w := k.current()
		select {
		case w.slot <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		k.mu.Lock()
		if w == k.worker {
			w.since = time.Now()
			k.mu.Unlock()
			return w
		}
		k.mu.Unlock() // the worker was abandoned meanwhile
		<-w.slot
	}
}

// current returns the worker to use. It replaces one that hangs.
func (k *Keychain) current() *worker {
	k.mu.Lock()
	defer k.mu.Unlock()
	busy := len(k.worker.slot) > 0 && !k.worker.since.IsZero()
	if busy && time.Since(k.worker.since) > giveUpAfter*k.timeout && k.givenUp < maxGivenUp {
		k.givenUp++
		k.worker = newWorker()
	}
	return k.worker
}

// release frees w. If w was abandoned, release decrements their number.
func (k *Keychain) release(w *worker) {
	k.mu.Lock()
	w.since = time.Time{}
	if w != k.worker {
		k.givenUp--
	}
	k.mu.Unlock()
	<-w.slot
}

// spare returns a reason without a call if the call would raise a dialog that ctx does not allow. For a back end that raises
// dialogs by itself, the last refusal stays valid until a call that may raise one.
func (k *Keychain) spare(ctx context.Context) messages.Reason {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.asksByItself || k.locked == "" || takeDialog(ctx) {
		return ""
	}
	return k.locked
}

func (k *Keychain) remember(reason messages.Reason) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch reason {
	case messages.ReasonKeychainLocked, messages.ReasonKeychainDenied:
		k.locked = reason
	case messages.ReasonOK:
		k.locked = ""
	}
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

// equal compares a and b by their digests, so that timing reveals neither content nor length.
func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}
