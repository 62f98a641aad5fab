package actorkit

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errGone = errors.New("gone")

// A2: with a full mailbox or without a reply, Tell and Ask return the cause of the context's end.
func TestNothingWaitsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errGone)
		defer cancel()
		if err := Tell(ctx, make(chan int), 1); !errors.Is(err, errGone) {
			t.Fatalf("Tell = %v, want the context's cause", err)
		}
		ctx, cancel = context.WithTimeoutCause(t.Context(), time.Second, errGone)
		defer cancel()
		box := make(chan chan<- string, 1)
		if _, err := Ask(ctx, box, func(reply chan<- string) chan<- string { return reply }); !errors.Is(err, errGone) {
			t.Fatalf("Ask = %v, want the context's cause", err)
		}
		(<-box) <- "late" // a late reply does not block the receiver
	})
}

func TestAsk(t *testing.T) {
	box := make(chan chan<- string, 1)
	go func() { (<-box) <- "answer" }()
	got, err := Ask(t.Context(), box, func(reply chan<- string) chan<- string { return reply })
	if err != nil || got != "answer" {
		t.Fatalf("Ask = %q, %v; want answer, nil", got, err)
	}
}

// A2: a reader gets the newest value and is notified of every change.
func TestWatch(t *testing.T) {
	watch := NewWatch(0)
	value, changed := watch.Next()
	if value != 0 {
		t.Fatalf("first value: got %d, want 0", value)
	}
	select {
	case <-changed:
		t.Fatal("got a notification without a change")
	default:
	}
	watch.Set(1)
	watch.Set(2)
	<-changed
	if value, _ = watch.Next(); value != 2 || watch.Get() != 2 {
		t.Fatalf("newest value: got %d, want 2", value)
	}
}
