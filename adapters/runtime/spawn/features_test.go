package spawn

import (
	"slices"
	"strings"
	"testing"
	"time"

	"companion/messages"
)

// listed is a part of what llama-server b10434 prints.
const listed = `----- common params -----

-t,    --threads N                      number of CPU threads to use during generation (default: -1)
--spec-type none,draft-simple,draft-mtp,ngram-simple,ngram-map-k,ngram-cache
                                        comma-separated list of types of speculative decoding to use (default:
                                        none)
--spec-ngram-simple-size-n N            ngram size N for ngram-simple speculative decoding, length of lookup
                                        n-gram (default: 12)
--spec-ngram-simple-size-m N            ngram size M for ngram-simple speculative decoding, length of draft
                                        m-gram (default: 48)
--draft, --draft-n, --draft-max N       the argument has been removed. use --spec-draft-n-max or
                                        --spec-ngram-mod-n-max
-sps,  --slot-prompt-similarity SIMILARITY
                                        how much the prompt of a request must match (see --sleep)
--warmup, --no-warmup                   whether to perform warmup with an empty run (default: enabled)
--sleep-idle-seconds SECONDS            number of seconds of idleness after which the server will sleep
                                        (default: -1; -1 = disabled)
`

// R12: only what the runtime lists is used: an option that is missing or removed, a kind that is missing, and a
// mention in a description count as absent.
func TestFeatures(t *testing.T) {
	all := Features{Speculation: true, Sleep: true, NoWarmup: true}
	no := func(change func(*Features)) Features { changed := all; change(&changed); return changed }
	for name, tt := range map[string]struct {
		text string
		want Features
	}{
		"all":                  {listed, all},
		"nothing":              {"", Features{}},
		"no such switch":       {strings.Replace(listed, ", --no-warmup ", "              ", 1), no(func(f *Features) { f.NoWarmup = false })},
		"no such kind":         {strings.Replace(listed, "ngram-simple,", "", 1), no(func(f *Features) { f.Speculation = false })},
		"a longer name":        {strings.Replace(listed, "ngram-simple,", "ngram-simple2,", 1), no(func(f *Features) { f.Speculation = false })},
		"no lookup length":     {strings.Replace(listed, "--spec-ngram-simple-size-n", "--spec-ngram-size-n", 1), no(func(f *Features) { f.Speculation = false })},
		"no draft length":      {strings.Replace(listed, "--spec-ngram-simple-size-m", "--spec-ngram-size-m", 1), no(func(f *Features) { f.Speculation = false })},
		"removed":              {strings.Replace(listed, "ngram size N for", "the argument has been removed.", 1), no(func(f *Features) { f.Speculation = false })},
		"removed, next line":   {strings.Replace(listed, "(default: -1; -1 = disabled)", "has been removed", 1), no(func(f *Features) { f.Sleep = false })},
		"only in a sentence":   {"  use --sleep-idle-seconds\n", Features{}},
		"a runtime of ours":    {"Usage of hostile:\n  -alias string\n", Features{}},
		"second name of a row": {"-x, --sleep-idle-seconds N  sleep\n", Features{Sleep: true}},
	} {
		if got := parseFeatures(parseOptions(strings.Split(tt.text, "\n"))); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
	}
}

// R12: a runtime that failed or was ended while it listed its options has no list, however much of it arrived. So has one
// whose list lacks the option that every build has.
func TestFeaturesOfABrokenList(t *testing.T) {
	whole := strings.Split("-m,    --model FNAME  model path to load\n"+listed, "\n")
	ended := messages.ExitReport{}
	if got, err := featuresOf(whole, ended); err != nil || got != (Features{Speculation: true, Sleep: true, NoWarmup: true}) {
		t.Fatalf("a whole list: got %+v, %v; want all features", got, err)
	}
	for name, tt := range map[string]struct {
		lines []string
		exit  messages.ExitReport
	}{
		"killed":           {whole, messages.ExitReport{Code: -1, Signal: "killed"}},
		"failed":           {whole, messages.ExitReport{Code: 1}},
		"nothing":          {nil, ended},
		"another program":  {[]string{"Usage of hostile:", "  -alias string"}, ended},
		"without --model":  {strings.Split(listed, "\n"), ended},
		"killed, no lines": {nil, messages.ExitReport{Code: -1, Signal: "killed"}},
	} {
		if got, err := featuresOf(tt.lines, tt.exit); err == nil || got != (Features{}) {
			t.Errorf("%s: got %+v, %v; want no features and an error", name, got, err)
		}
	}
}

// R12, R13: the arguments follow what the runtime has and what is wanted. An embedding model does not use speculative decoding.
func TestOptionalArguments(t *testing.T) {
	all := Spec{
		Context: 512, MaxInFlight: 1, Features: Features{Speculation: true, Sleep: true},
		Speculate: true, SleepAfter: 90 * time.Second, PromptCache: 64<<20 + 1,
	}
	without := func(change func(*Spec)) Spec { changed := all; change(&changed); return changed }
	for name, tt := range map[string]struct {
		spec Spec
		want string
	}{
		"all":                {all, "--spec-type ngram-simple --spec-ngram-simple-size-n 5 --spec-ngram-simple-size-m 8 --sleep-idle-seconds 90"},
		"an old runtime":     {without(func(s *Spec) { s.Features = Features{} }), ""},
		"not wanted":         {without(func(s *Spec) { s.Speculate, s.SleepAfter = false, 0 }), ""},
		"an embedding model": {without(func(s *Spec) { s.Model = messages.VerifiedModel{Embedding: true} }), "--sleep-idle-seconds 90"},
		"no warm-up":         {without(func(s *Spec) { s.Features = Features{NoWarmup: true} }), "--no-warmup"},
		"half a second":      {without(func(s *Spec) { s.Speculate, s.SleepAfter = false, time.Second/2 }), "--sleep-idle-seconds 1"},
	} {
		if got := strings.Join(tt.spec.optional(places{}), " "); got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
		args := (&preparation{spec: tt.spec}).arguments(places{model: "m"})
		if at := slices.Index(args, "--cache-ram"); at < 0 || args[at+1] != "64" {
			t.Errorf("%s: got the arguments %q, want a prompt cache of 64 MiB", name, args)
		}
	}
	asked := (&preparation{spec: Spec{Runtime: messages.VerifiedRuntime{Executable: "bin/llama-server"}}, ask: true}).arguments(places{model: "m"})
	if want := []string{"llama-server", "--help"}; !slices.Equal(asked, want) {
		t.Errorf("asking for the options: got %q, want %q", asked, want)
	}
}
