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

// A2: a full mailbox or a silent owner gives the asker its context's cause, never a hang.
func TestNothingWaitsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errGone)
		defer cancel()
		if err := Tell(ctx, make(chan int), 1); !errors.Is(err, errGone) {
			t.Fatalf("Tell = %v", err)
		}
		ctx, cancel = context.WithTimeoutCause(t.Context(), time.Second, errGone)
		defer cancel()
		box := make(chan chan<- string, 1)
		if _, err := Ask(ctx, box, func(reply chan<- string) chan<- string { return reply }); !errors.Is(err, errGone) {
			t.Fatalf("Ask = %v", err)
		}
		(<-box) <- "late" // the owner never waits for an asker that has left
	})
}

func TestAsk(t *testing.T) {
	box := make(chan chan<- string, 1)
	go func() { (<-box) <- "answer" }()
	got, err := Ask(t.Context(), box, func(reply chan<- string) chan<- string { return reply })
	if err != nil || got != "answer" {
		t.Fatalf("Ask = %q, %v", got, err)
	}
}

// A2: a reader sees the newest value and is woken by every newer one.
func TestWatch(t *testing.T) {
	watch := NewWatch(0)
	value, changed := watch.Next()
	if value != 0 {
		t.Fatalf("first value %d", value)
	}
	select {
	case <-changed:
		t.Fatal("woken without a change")
	default:
	}
	watch.Set(1)
	watch.Set(2)
	<-changed
	if value, _ = watch.Next(); value != 2 || watch.Get() != 2 {
		t.Fatalf("newest value %d", value)
	}
}
