package enrich

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"companion/adapters/completion"
	"companion/adapters/completion/lane"
)

// E7, E9: a note that another run works on is not sent a second time, and its result is there when both runs have ended.
// A run that dies leaves no claim.
func TestClaims(t *testing.T) {
	dir := t.TempDir()
	path := put(t, filepath.Join(dir, "a.md"), "hello\n")
	next := put(t, filepath.Join(dir, "b.md"), "hello too\n")
	other := put(t, filepath.Join(dir, "c.md"), "hello three\n")
	place := filepath.Join(dir, "out.jsonl")
	run := func(ctx context.Context, f *fake, l lane.Lane) (skipped []string) {
		store, err := OpenLines(place)
		if err != nil {
			t.Error(err)
			return nil
		}
		claims, err := OpenClaims(filepath.Join(dir, "claims"))
		if err != nil {
			t.Error(err)
			return nil
		}
		e := enricher(f)
		e.Lane, e.Claims = l, claims
		err = Batch(ctx, e, []string{path, next, other}, 1, store, func(o Outcome) {
			if o.Skipped {
				skipped = append(skipped, filepath.Base(o.Path))
			} else if o.Err != nil {
				t.Error(o.Err)
			}
		})
		if err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
		if err := claims.Close(); err != nil {
			t.Error(err)
		}
		return skipped
	}
	// The second run begins while the first waits for an answer about a.md. It does one note meanwhile: the first run has claimed
	// one more, or is about to.
	second := make(chan []string, 1)
	near, far := &fake{}, &fake{}
	sent := make(chan struct{})
	far.answer = func(context.Context, int) (completion.Answer, error) {
		defer close(sent)
		return completion.Answer{Text: good, SentBytes: 1000}, nil
	}
	near.answer = func(_ context.Context, call int) (completion.Answer, error) {
		if call == 1 {
			go func() { second <- run(t.Context(), far, lane.SelfHosted) }()
			<-sent
		}
		return completion.Answer{Text: good}, nil
	}
	first := run(t.Context(), near, lane.Local)
	got := <-second
	if len(near.turns) != 2 || len(far.turns) != 1 || len(first) != 1 || len(got) != 2 || !slices.Contains(got, "a.md") || slices.Contains(got, first[0]) {
		t.Fatalf("got %d and %d requests, %v and %v skipped, want 2 and 1, each note skipped by one run", len(near.turns), len(far.turns), first, got)
	}
	lines := map[string]int{}
	err := Verify(t.Context(), place, func(v Verified) error {
		lines[filepath.Base(v.Path)]++
		if away := v.Result.SentAway(); (away == 1000) != (filepath.Base(v.Path) == first[0]) {
			t.Errorf("%s: got %d bytes sent away, want 1000 for %s alone", v.Path, away, first[0])
		}
		return nil
	})
	if err != nil || lines["a.md"] != 1 || lines["b.md"] != 1 || lines["c.md"] != 1 {
		t.Errorf("got %v, %v, want one result each", lines, err)
	}
}

// E9: a receipt of bytes that were sent is kept, also if the note's result was there by then.
func TestReceiptKept(t *testing.T) {
	place := filepath.Join(t.TempDir(), "out.jsonl")
	one, err := OpenLines(place)
	if err != nil {
		t.Fatal(err)
	}
	two, err := OpenLines(place)
	if err != nil {
		t.Fatal(err)
	}
	far := resultOf(t, "/a.md", "x")
	far.Provenance.Lane, far.Provenance.BytesSent = lane.SelfHosted, map[string]int64{string(lane.SelfHosted): 1000}
	for store, r := range map[*Lines]Result{one: resultOf(t, "/a.md", "x"), two: far} {
		if err := store.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	var away int64
	if err := Verify(t.Context(), place, func(v Verified) error { away += v.Result.SentAway(); return nil }); err != nil || away != 1000 {
		t.Errorf("got %d bytes sent away, %v, want 1000", away, err)
	}
}

// E9: every result of a folder is verified, whatever the folder's name, with the sidecars below it; a folder without any
// is an error.
func TestVerifyFolder(t *testing.T) {
	dir := t.TempDir()
	path := put(t, filepath.Join(dir, "deep", "a.md"), "hello\n")
	out, err := OpenFolder(filepath.Join(dir, "out[1]*?"))
	if err != nil {
		t.Fatal(err)
	}
	for _, store := range []Store{out, Sidecar{}} {
		if err := Batch(t.Context(), enricher(&fake{}), []string{path}, 1, store, func(o Outcome) {
			if o.Err != nil {
				t.Error(o.Err)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, []byte("changed\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, place := range []string{out.dir, dir} {
		stale := 0
		err := Verify(t.Context(), place, func(v Verified) error {
			if v.Standing == Stale {
				stale++
			}
			return nil
		})
		if err != nil || stale != 1 {
			t.Errorf("%s: got %d stale, %v, want 1", place, stale, err)
		}
	}
	if err := Verify(t.Context(), t.TempDir(), func(Verified) error { return nil }); err == nil {
		t.Error("got no error for a folder without results, want one")
	}
}

// E9: two texts of standard input in one file are two notes.
func TestVerifyStandardInput(t *testing.T) {
	place := filepath.Join(t.TempDir(), "out.jsonl")
	l, err := OpenLines(place)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"a", "b"} {
		r := resultOf(t, Standard, text)
		if err := l.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	err = Verify(t.Context(), place, func(v Verified) error {
		if v.Standing != Unknown {
			t.Errorf("got %s, want %s", v.Standing, Unknown)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// E6: a note that repeats the block of enrich many times costs no copy for each.
func TestManyBlocks(t *testing.T) {
	r := Result{Tags: []string{}, OpenQuestions: []string{}}
	block, err := renderBlock(r, beginHeader, "\n", false)
	if err != nil {
		t.Fatal(err)
	}
	one := "---\n" + string(block) + "---\n"
	text := []byte(strings.Repeat(one, MaxNote/len(one)/2) + "body\n")
	began := time.Now()
	parsed, err := ParseNote("x.md", text)
	if err != nil || !strings.HasSuffix(parsed.Body, "body") {
		t.Errorf("got %v, want the note", err)
	}
	allocated := testing.AllocsPerRun(1, func() { _, _ = ParseNote("x.md", text) })
	if allocated > 1000 {
		t.Errorf("got %.0f allocations in %s, want at most 1000", allocated, time.Since(began))
	}
}

// E7: a run that waits for notes of another run says so; the bytes of a note that the end of the run interrupts are reported.
func TestWaitsForAnotherRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := put(t, filepath.Join(dir, "a.md"), "hello\n")
		n, err := ReadNote(path)
		if err != nil {
			t.Fatal(err)
		}
		other, err := OpenClaims(filepath.Join(dir, "claims"))
		if err != nil {
			t.Fatal(err)
		}
		if mine, err := other.take(n); err != nil || !mine {
			t.Fatalf("got %v, %v, want the claim", mine, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		f := &fake{answer: func(context.Context, int) (completion.Answer, error) {
			cancel()
			return completion.Answer{SentBytes: 1000}, context.Canceled
		}}
		e := enricher(f)
		if e.Claims, err = OpenClaims(filepath.Join(dir, "claims")); err != nil {
			t.Fatal(err)
		}
		var waiting, unfinished int
		began := time.Now()
		err = Batch(ctx, e, []string{path}, 1, Stream{io.Discard}, func(o Outcome) {
			switch {
			case o.Waiting > 0:
				waiting++
				if took := time.Since(began); o.Waiting != 1 || took != claimSilence {
					t.Errorf("got %d notes after %v, want 1 after %v", o.Waiting, took, claimSilence)
				}
				time.AfterFunc(time.Minute, func() { other.release(n) })
			case o.Unfinished && o.Sent == 1000:
				unfinished++
			default:
				t.Errorf("got %+v, want nothing else", o)
			}
		})
		if !errors.Is(err, context.Canceled) || waiting != 1 || unfinished != 1 {
			t.Errorf("got %v, %d reports of waiting and %d of an unfinished note, want the interruption and one each", err, waiting, unfinished)
		}
		if err := errors.Join(other.Close(), e.Claims.Close()); err != nil {
			t.Error(err)
		}
	})
}

// E7: a note whose block another run has written since it was read is done; each store is asked before a request.
func TestDoneMeanwhile(t *testing.T) {
	path := put(t, filepath.Join(t.TempDir(), "a.md"), "hello\n")
	before, err := ReadNote(path)
	if err != nil {
		t.Fatal(err)
	}
	store := FrontMatter{}
	if done, err := store.Done(before); done || err != nil {
		t.Fatalf("got %v, %v, want a note that is not done", done, err)
	}
	if err := Batch(t.Context(), enricher(&fake{}), []string{path}, 1, store, func(Outcome) {}); err != nil {
		t.Fatal(err)
	}
	if done, err := store.Done(before); !done || err != nil {
		t.Errorf("got %v, %v, want the note done", done, err)
	}
	refusing := put(t, filepath.Join(t.TempDir(), "b.md"), "---\ncompanion: mine\n---\nhello\n")
	n, err := ReadNote(refusing)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (Both{Stream{io.Discard}, store}).Done(n); err == nil {
		t.Error("got no refusal of the second store, want one before a request")
	}
}

// E9: a result that replaces another one has the bytes that were sent for both.
func TestReplacedReceipt(t *testing.T) {
	dir := t.TempDir()
	path := put(t, filepath.Join(dir, "a.md"), "hello\n")
	folder, err := OpenFolder(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	for place, store := range map[string]Store{folder.dir: folder, path + sidecarSuffix: Sidecar{}} {
		for i, text := range []string{"one\n", "two\n"} {
			put(t, path, text)
			e := enricher(&fake{answer: func(context.Context, int) (completion.Answer, error) {
				return completion.Answer{Text: good, SentBytes: 1000}, nil
			}})
			if i == 0 {
				e.Lane = lane.SelfHosted
			}
			if err := Batch(t.Context(), e, []string{path}, 1, store, func(Outcome) {}); err != nil {
				t.Fatal(err)
			}
		}
		var away int64
		if err := Verify(t.Context(), place, func(v Verified) error { away += v.Result.SentAway(); return nil }); err != nil || away != 1000 {
			t.Errorf("%s: got %d bytes sent away, %v, want 1000", place, away, err)
		}
	}
}
