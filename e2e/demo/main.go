// Command demo shows the whole chain on real parts: it fetches a runtime and a small instruction-tuned model, starts
// the development hub and the companion, signs in, and ends with an answer and an enriched note. Everything it makes
// is under .cache and, under a service name of its own, in the kernel keyring; where the path of .cache is too long
// for sockets, they are in a temporary folder, which it removes. It runs until Ctrl-C, which ends it with status 130;
// with DEMO_ONCE=1 it ends after the note, with status 0. It exits with 1 when a stage failed.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// signalDelay bounds how much earlier than this program another one of its group handles Ctrl-C.
const signalDelay = 300 * time.Millisecond

// exitInterrupted is 128 and the number of SIGINT, as shells show it.
const exitInterrupted = 130

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM) // before Ctrl-C is promised
	fmt.Println("A private language model on this machine, from nothing. Ctrl-C ends it all.")
	err := show(ctx, os.Getenv("DEMO_ONCE") == "1")
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case interrupted && (err == nil || errors.Is(err, context.Canceled)):
		fmt.Println("Stopped: the companion and its hub have ended.")
		os.Exit(exitInterrupted)
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// stage is one step of the chain. do returns a text about its result.
type stage struct {
	name  string
	about string // what it does, shown while it runs
	do    func(context.Context) (string, error)
}

func show(ctx context.Context, once bool) (err error) {
	d, err := prepare()
	if err != nil {
		return err
	}
	defer func() {
		if stopErr := d.stop(); err == nil {
			err = stopErr
		}
	}()
	began := time.Now()
	for _, s := range []stage{
		{"fixtures", "llama-server and SmolLM2 135M Instruct, 130 MB to fetch the first time", d.fixtures},
		{"build", "companion and devhub, some minutes the first time", d.build},
		{"hub", "a development hub on this machine", d.hub},
		{"publish", "the model and the runtime, signed", d.publish},
		{"daemon", "companion run", d.daemon},
		{"sign in", "companion login", d.signIn},
		{"manifest", "the signed list of files", d.manifest},
		{"download, verify", "from the hub, against the signed checksums", d.download},
		{"available", "llama-server starts in its sandbox", d.available},
		{"answer", "companion chat", d.answer},
		{"enrich", "companion enrich", d.enrich},
	} {
		start := time.Now()
		d.begin(s)
		said, err := s.do(ctx)
		d.end()
		if err != nil {
			fmt.Printf("✗ %-17s %8s\n", s.name, short(start))
			// Ctrl-C reaches the programs of a stage too, and one may have ended before the signal arrives here.
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(signalDelay):
			}
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Printf("✓ %-17s %8s  %s\n", s.name, short(start), said)
	}
	fmt.Printf("\nThe whole chain took %s.\n", short(began))
	if once {
		fmt.Printf("What it made is in %s.\n", d.dir)
		return nil
	}
	d.invite()
	select {
	case <-ctx.Done():
		return nil
	case err := <-d.died:
		return err
	}
}

func short(since time.Time) string {
	return time.Since(since).Round(10 * time.Millisecond).String()
}
