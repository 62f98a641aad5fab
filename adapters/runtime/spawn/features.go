package spawn

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"companion/messages"
)

// Features are the options of a runtime that not every build has.
type Features struct {
	// Speculation: speculative decoding with drafts from the text so far (ngram-simple), with the numbers below.
	Speculation bool
	// NoWarmup: it can leave out the empty run at its start (--no-warmup). The token that the health probe asks for before
	// the runtime counts as ready does the same.
	NoWarmup bool
	// Draft: a draft model is possible (draft-simple).
	Draft bool
	// Sleep: an idle model can give its memory back (--sleep-idle-seconds).
	Sleep bool
}

// The drafts of ngram-simple: the last lookupTokens are searched for in the text so far, and up to draftTokens that
// followed them are checked in one step. It keeps no state between requests, so equal requests get equal drafts.
// docs/benchmarks.md says how the kind and the numbers were chosen.
const (
	speculationKind = "ngram-simple"
	lookupTokens    = 5
	draftTokens     = 8
	draftKind       = "draft-simple"
)

const (
	typeOption       = "--spec-type"
	lookupOption     = "--spec-ngram-simple-size-n"
	draftOption      = "--spec-ngram-simple-size-m"
	sleepOption      = "--sleep-idle-seconds"
	warmupOption     = "--no-warmup"
	draftModelOption = "--model-draft"
	modelOption      = "--model" // every build has it
)

// askPatience bounds the time in which a runtime lists its options, which takes tenths of a second.
const askPatience = 5 * time.Second

// Ask starts the runtime of spec only to list its options (--help), with the verification and the confinement of every
// start, and waits for its end. The answer is nothing more than text: a hostile one makes the later start fail.
func Ask(ctx context.Context, spec Spec) (Features, error) {
	var mu sync.Mutex
	var lines []string
	spec.Line = func(line string) {
		mu.Lock()
		defer mu.Unlock()
		if len(lines) < 4096 {
			lines = append(lines, line)
		}
	}
	prepared, err := prepare(spec)
	if err != nil {
		return Features{}, err
	}
	prepared.ask = true
	started, err := prepared.run()
	if err != nil {
		return Features{}, err
	}
	bounded, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	var exit messages.ExitReport
	select {
	case exit = <-started.Exit:
	case p := <-started.Panics:
		started.Handle.Kill(bounded, 0)
		panic(p)
	case <-bounded.Done():
		started.Handle.Kill(bounded, 0)
		<-started.Exit
		return Features{}, fmt.Errorf("asking the runtime for its options: %w", context.Cause(bounded))
	}
	mu.Lock()
	defer mu.Unlock()
	return featuresOf(lines, exit)
}

// featuresOf returns what a whole list says. A runtime that failed, or that was ended while it wrote, has no list.
func featuresOf(lines []string, exit messages.ExitReport) (Features, error) {
	values := parseOptions(lines)
	switch _, whole := values[modelOption]; {
	case exit.Signal != "":
		return Features{}, fmt.Errorf("asking the runtime for its options: got the signal %q, want a list and the exit status 0", exit.Signal)
	case exit.Code != 0:
		return Features{}, fmt.Errorf("asking the runtime for its options: got the exit status %d, want a list and 0", exit.Code)
	case !whole:
		return Features{}, fmt.Errorf("asking the runtime for its options: got a list without %s, want a whole one", modelOption)
	}
	return parseFeatures(values), nil
}

var optionName = regexp.MustCompile(`--[a-z0-9-]+`)

// parseOptions reads the text of --help. An option is at the beginning of its line, with its other names and its
// values; the lines of its description are indented. An option that was removed is listed too, and described as
// removed.
func parseOptions(lines []string) map[string]string {
	values := map[string]string{} // option → the rest of its line
	for i, line := range lines {
		if !strings.HasPrefix(line, "-") {
			continue
		}
		described := line
		if i+1 < len(lines) && strings.HasPrefix(lines[i+1], " ") {
			described += lines[i+1]
		}
		if strings.Contains(described, "has been removed") {
			continue
		}
		for _, at := range optionName.FindAllStringIndex(line, -1) {
			values[line[at[0]:at[1]]] = line[at[1]:]
		}
	}
	return values
}

func parseFeatures(values map[string]string) Features {
	_, lookup := values[lookupOption]
	_, draft := values[draftOption]
	_, sleep := values[sleepOption]
	_, noWarmup := values[warmupOption]
	kinds := strings.Split(strings.TrimSpace(values[typeOption]), ",")
	_, model := values[draftModelOption]
	return Features{
		Draft: model && slices.Contains(kinds, draftKind), Speculation: lookup && draft && slices.Contains(kinds, speculationKind),
		Sleep: sleep, NoWarmup: noWarmup,
	}
}

func (s Spec) speculates() bool {
	return (s.Features.Speculation || s.drafts()) && s.Speculate && !s.Model.Embedding
}

// drafts reports whether a draft model can guess.
func (s Spec) drafts() bool {
	return s.Features.Draft && slices.ContainsFunc(s.Model.Parts, func(p messages.VerifiedPart) bool { return p.Role == messages.RoleDraft })
}

// UsesDraft reports whether the runtime is started with the model's draft model.
func (s Spec) UsesDraft() bool { return s.speculates() && s.drafts() }

func (s Spec) sleeps() bool { return s.Features.Sleep && s.SleepAfter > 0 }

// optional are the arguments that the runtime may lack.
func (s Spec) optional(of places) []string {
	var args []string
	switch {
	case s.UsesDraft():
		args = append(args, typeOption, draftKind, draftModelOption, of.draft)
	case s.speculates():
		args = append(args, typeOption, speculationKind, lookupOption, fmt.Sprint(lookupTokens), draftOption, fmt.Sprint(draftTokens))
	}
	if s.Features.NoWarmup {
		args = append(args, warmupOption)
	}
	if s.sleeps() {
		args = append(args, sleepOption, fmt.Sprint(int64(max(s.SleepAfter, time.Second)/time.Second)))
	}
	return args
}
