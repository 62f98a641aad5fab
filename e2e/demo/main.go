// Command demo shows the whole chain on real parts: it fetches a runtime and a model, starts the
// development hub and the companion, signs in, and ends with an answer and an enriched note. Everything
// it makes is under .cache and in the kernel keyring under its own service name; where the path of that
// is too long for sockets, they are in a temporary folder, which it removes. It runs until Ctrl-C; with
// DEMO_ONCE=1 it ends after the note. It exits 1 when a stage failed.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := show(ctx, os.Getenv("DEMO_ONCE") == "1")
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// stage is one link of the chain: what it does, said in a few words, and the doing, which returns what
// there is to say about it.
type stage struct {
	name string
	do   func(context.Context) (string, error)
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
		{"fixtures", d.fixtures},
		{"build", d.build},
		{"hub", d.hub},
		{"publish", d.publish},
		{"daemon", d.daemon},
		{"sign in", d.signIn},
		{"manifest", d.manifest},
		{"download, verify", d.download},
		{"available", d.available},
		{"answer", d.answer},
		{"enrich", d.enrich},
	} {
		start := time.Now()
		said, err := s.do(ctx)
		if err != nil {
			fmt.Printf("✗ %-17s %8s\n", s.name, short(start))
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Printf("✓ %-17s %8s  %s\n", s.name, short(start), said)
	}
	fmt.Printf(`
The whole chain took %s. The answers ramble, with marks such as <|im_end|> in them, because the model is a
small base model; what is shown is the chain.
`, short(began))
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
