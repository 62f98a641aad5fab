package keychain

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a keychain in memory with injected faults. It is for tests only; the configuration cannot select it (K3).
type fake struct {
	mu    sync.Mutex
	items map[string]string
	calls int
	err   error
	hang  chan struct{} // not nil: every call waits for it and ignores its context
	lie   bool          // set returns success and stores nothing
}

func (f *fake) enter() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.items == nil {
		f.items = map[string]string{}
	}
	if f.hang != nil {
		hang := f.hang
		f.mu.Unlock()
		<-hang
		f.mu.Lock()
	}
	return f.err
}

func (f *fake) setHang(hang chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hang = hang
}

func (f *fake) get(_ context.Context, service, account string) (string, error) {
	if err := f.enter(); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	v, ok := f.items[service+"/"+account]
	if !ok {
		return "", errAbsent
	}
	return v, nil
}

func (f *fake) set(_ context.Context, service, account, value string) error {
	if err := f.enter(); err != nil || f.lie {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.items[service+"/"+account] = value
	return nil
}

func (f *fake) delete(_ context.Context, service, account string) error {
	if err := f.enter(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.items[service+"/"+account]; !ok {
		return errAbsent
	}
	delete(f.items, service+"/"+account)
	return nil
}

func TestFakeConforms(t *testing.T) { testBackEnd(t, &fake{}, "companion-test", MaxValue) }

// K1, T5: there are exactly three operations.
func TestSurface(t *testing.T) {
	var methods []string
	for m := range reflect.TypeFor[*Keychain]().Methods() {
		methods = append(methods, m.Name)
	}
	if got := strings.Join(methods, " "); got != "Delete Get Set" {
		t.Fatalf("exported methods: got %s, want Delete Get Set", got)
	}
}

// K1: an unknown account name is refused before the back end is called.
func TestUnknownAccount(t *testing.T) {
	for _, name := range []Account{"", "access_token", "access-token ", "*", "session"} {
		f := &fake{}
		k := newKeychain(f, Options{Service: "s"})
		_, _, err := k.Get(t.Context(), name)
		wantReason(t, err, messages.ReasonUnknownAccount)
		wantReason(t, k.Set(t.Context(), name, messages.NewSecret("v")), messages.ReasonUnknownAccount)
		wantReason(t, k.Delete(t.Context(), name), messages.ReasonUnknownAccount)
		if f.calls != 0 {
			t.Fatalf("%q: got %d calls of the back end, want none", name, f.calls)
		}
	}
}

// K1: values are 1–8192 bytes of UTF-8, for both set and get.
func TestValueBounds(t *testing.T) {
	rows := map[string]struct {
		value string
		want  messages.Reason
	}{
		"empty":        {"", messages.ReasonInvalidSecret},
		"not UTF-8":    {"a\xff", messages.ReasonInvalidSecret},
		"smallest":     {"a", messages.ReasonOK},
		"largest":      {strings.Repeat("a", 8192), messages.ReasonOK},
		"one too many": {strings.Repeat("a", 8193), messages.ReasonSecretTooLarge},
	}
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			f := &fake{}
			k := newKeychain(f, Options{Service: "s"})
			wantReason(t, k.Set(t.Context(), AccessToken, messages.NewSecret(r.value)), r.want)
			if r.want == messages.ReasonOK {
				return
			}
			if f.calls != 0 {
				t.Fatalf("bad value: got %d calls of the back end, want none", f.calls)
			}
			f.items = map[string]string{"s/access-token": r.value}
			got, found, err := k.Get(t.Context(), AccessToken)
			wantReason(t, err, messages.ReasonInvalidSecret)
			if found || !got.IsZero() {
				t.Fatal("bad value in the back end: got it returned, want an error")
			}
		})
	}
}

// K3, K4, K7: each failure keeps its own reason, and none is reported as a missing item.
func TestFailuresAreToldApart(t *testing.T) {
	reasons := []messages.Reason{
		messages.ReasonKeychainUnavailable, messages.ReasonKeychainLocked,
		messages.ReasonKeychainDenied, messages.ReasonKeychainTimeout, messages.ReasonSecretTooLarge,
	}
	for _, want := range reasons {
		k := newKeychain(&fake{err: fail(want, errors.New("cause"))}, Options{Service: "s"})
		_, found, err := k.Get(t.Context(), AccessToken)
		wantReason(t, err, want)
		if found {
			t.Fatalf("%s: got found, want an error", want)
		}
		wantReason(t, k.Set(t.Context(), AccessToken, messages.NewSecret("v")), want)
		wantReason(t, k.Delete(t.Context(), AccessToken), want)
	}
	k := newKeychain(&fake{err: errors.New("something new")}, Options{Service: "s"})
	wantReason(t, k.Delete(t.Context(), AccessToken), messages.ReasonKeychainUnavailable)
}

// K7: a set is read back.
func TestSetIsReadBack(t *testing.T) {
	f := &fake{lie: true}
	k := newKeychain(f, Options{Service: "s"})
	wantReason(t, k.Set(t.Context(), LoopbackToken, messages.NewSecret("new")), messages.ReasonKeychainDenied)
	f.items = map[string]string{"s/loopback-token": "old"}
	wantReason(t, k.Set(t.Context(), LoopbackToken, messages.NewSecret("new")), messages.ReasonKeychainDenied)
}

// K7: a back end that hangs does not block its callers, and its late write does not overwrite a later one.
func TestHungBackEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{hang: make(chan struct{})}
		k := newKeychain(f, Options{Service: "s", Timeout: 5 * time.Second})
		began := time.Now()
		wantReason(t, k.Set(t.Context(), AccessToken, messages.NewSecret("first")), messages.ReasonKeychainTimeout)
		_, _, err := k.Get(t.Context(), AccessToken)
		wantReason(t, err, messages.ReasonKeychainTimeout)
		if took := time.Since(began); took > 11*time.Second {
			t.Fatalf("got an answer after %v, want at most 11s", took)
		}
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		wantReason(t, k.Delete(cancelled, AccessToken), messages.ReasonKeychainTimeout)
		f.mu.Lock()
		if f.calls != 1 {
			t.Fatalf("got %d calls of the hung back end, want 1", f.calls)
		}
		hang := f.hang
		f.hang = nil
		f.mu.Unlock()
		close(hang)
		if err := k.Set(t.Context(), AccessToken, messages.NewSecret("second")); err != nil {
			t.Fatal(err)
		}
		wantValue(t, k, AccessToken, "second")
	})
}

// panicking is a back end whose library panics.
type panicking struct {
	fake
	with any
}

func (p *panicking) get(context.Context, string, string) (string, error) { panic(p.with) }

// K7: a panic in the back end's library is the error of that call. The log gets the stack, but not the text of a value that
// is not a runtime error. The next call works.
func TestPanicIsContained(t *testing.T) {
	var heard []string
	back := &panicking{with: "a library that quotes the token planted-secret"}
	k := newKeychain(back, Options{Service: "s", Panicked: func(value string, stack []byte) {
		heard = append(heard, value)
		if !strings.Contains(string(stack), "keychain_test.go") {
			t.Errorf("got this stack, want one with the line of the panic:\n%s", stack)
		}
	}})
	for range 3 {
		_, _, err := k.Get(t.Context(), AccessToken)
		wantReason(t, err, messages.ReasonKeychainUnavailable)
	}
	var broken map[string]int
	back.with = func() (p any) { defer func() { p = recover() }(); broken["x"] = 1; return nil }()
	_, _, err := k.Get(t.Context(), AccessToken)
	wantReason(t, err, messages.ReasonKeychainUnavailable)
	if err := k.Delete(t.Context(), AccessToken); err != nil {
		t.Errorf("call after a panic: got %v, want no error", err)
	}
	if got, want := fmt.Sprint(heard), "[string string string assignment to entry in nil map]"; got != want {
		t.Errorf("Panicked: got %s, want %s", got, want)
	}
}

// K7: a worker that hangs for several deadlines is replaced, up to a limit. When its call returns, it no longer counts.
func TestWorkerIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		k := newKeychain(f, Options{Service: "s", Timeout: 5 * time.Second})
		var hangs []chan struct{}
		for range maxGivenUp + 1 {
			hang := make(chan struct{})
			hangs = append(hangs, hang)
			f.setHang(hang)
			wantReason(t, k.Set(t.Context(), AccessToken, messages.NewSecret("late")), messages.ReasonKeychainTimeout)
			f.setHang(nil)
			time.Sleep(giveUpAfter * 5 * time.Second)
		}
		wantReason(t, k.Delete(t.Context(), AccessToken), messages.ReasonKeychainTimeout)
		close(hangs[0])
		synctest.Wait()
		if err := k.Set(t.Context(), AccessToken, messages.NewSecret("now")); err != nil {
			t.Fatalf("after one of %d hanging workers returned: got %v, want no error", len(hangs), err)
		}
		wantValue(t, k, AccessToken, "now")
		for _, hang := range hangs[1:] {
			close(hang)
		}
		synctest.Wait()
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.givenUp != 0 {
			t.Errorf("abandoned workers: got %d, want 0", k.givenUp)
		}
	})
}

// K7: for a back end that raises dialogs by itself (macOS), the last refusal stays valid until a call that may raise a
// dialog: one dialog per action.
func TestBackEndThatAsksByItself(t *testing.T) {
	f := &fake{err: fail(messages.ReasonKeychainDenied, nil)}
	k := newKeychain(f, Options{Service: "s"})
	k.asksByItself = true
	for range 5 {
		_, _, err := k.Get(t.Context(), AccessToken)
		wantReason(t, err, messages.ReasonKeychainDenied)
	}
	if f.calls != 1 {
		t.Errorf("calls of the back end: got %d, want 1", f.calls)
	}
	f.err = nil
	if err := k.Set(Ask(t.Context()), AccessToken, messages.NewSecret("v")); err != nil {
		t.Fatal(err)
	}
	wantValue(t, k, AccessToken, "v")
}

// Rule 2: no error text contains the value.
func TestErrorsHoldNoValue(t *testing.T) {
	const value = "planted-secret"
	k := newKeychain(&fake{err: fail(messages.ReasonKeychainDenied, errors.New(value))}, Options{Service: "s"})
	err := k.Set(t.Context(), AccessToken, messages.NewSecret(value))
	if text := fmt.Sprintf("%v %s %q", err, err, err); strings.Contains(text, value) {
		t.Fatal(text)
	}
}

// K2, K3: a back end of another platform and an unknown one are refused, without a fallback.
func TestOpen(t *testing.T) {
	for _, name := range []string{"", "memory", "file", "Auto", "kernel"} {
		_, err := Open(Options{Backend: name, Service: "s"})
		wantReason(t, err, messages.ReasonKeychainUnavailable)
	}
	_, err := Open(Options{Backend: BackendAuto})
	wantReason(t, err, messages.ReasonKeychainUnavailable)
	if _, err := Open(Options{Backend: BackendAuto, Service: "s"}); err != nil {
		t.Fatal(err)
	}
}
