package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// failing is an actor that ends in a given way a number of times, and then serves.
type failing struct {
	name   string
	ends   []func() error
	served chan struct{}
}

func (f *failing) String() string { return f.name }

func (f *failing) Serve(ctx context.Context) error {
	if len(f.ends) > 0 {
		end := f.ends[0]
		f.ends = f.ends[1:]
		return end()
	}
	close(f.served)
	<-ctx.Done()
	return ctx.Err()
}

// A9, T12: every end of an actor is contained, logged and counted under its own name; the others go on; the value of a panic
// is not logged.
func TestFailuresAreContainedAndCounted(t *testing.T) {
	const canary = "canary-in-a-panic"
	core, logs := observer.New(zap.DebugLevel)
	ends := make(chan messages.ToLifecycle, 16)
	tree := newTree(ends, zap.New(core))
	bad := &failing{name: "door/health", served: make(chan struct{}), ends: []func() error{
		func() error { panic(messages.NewSecret(canary)) },
		func() error { panic(canary) },
		func() error { var none []int; return fmt.Errorf("%d", none[len(logs.All())]) },
		func() error { return errors.New("socket gone") },
		func() error { return nil },
	}}
	good := &failing{name: "door/control", served: make(chan struct{})}
	tree.wing("door", bad, good)
	ctx, cancel := context.WithCancel(t.Context())
	ended := tree.root.ServeBackground(ctx)
	<-good.served
	<-bad.served
	cancel()
	<-ended
	if len(ends) != 5+2 || <-ends != (messages.ActorEnded{Actor: messages.ActorHealth}) {
		t.Errorf("got %d ActorEnded, want 7: 5 failures and 2 actors at the end", len(ends))
	}
	for _, row := range tree.views.Get() {
		want := map[messages.Actor]int{"door/health": 5, "door/control": 0}[row.Name]
		if row.Restarts != want {
			t.Errorf("%s: got %d restarts, want %d", row.Name, row.Restarts, want)
		}
	}
	var text strings.Builder
	for _, entry := range logs.All() {
		text.WriteString(entry.Message)
		for key, value := range entry.ContextMap() {
			text.WriteString(" " + key + "=")
			if s, ok := value.(string); ok {
				text.WriteString(s)
			}
		}
	}
	if strings.Contains(text.String(), canary) {
		t.Errorf("got the panic value in the log, want it absent: %s", text.String())
	}
	for _, want := range []string{"index out of range", "socket gone", "a messages.Secret", "a string"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("log: got no %q, want it", want)
		}
	}
}
