package enrich

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"companion/adapters/completion"
)

// tokenizer is a fake runtime that counts a token for every bytesPerToken bytes of the prompt, refuses what does not
// fit its context, and keeps the text of every note that it was sent.
type tokenizer struct {
	context       int
	bytesPerToken float64
	read          strings.Builder
	calls         int
	merges        int
}

func (f *tokenizer) Ask(_ context.Context, turns []completion.Message, o completion.Options, _ time.Duration) (completion.Answer, error) {
	f.calls++
	tokens := int64(float64(len(turns[1].Content))/f.bytesPerToken) + overhead/2
	if tokens+o.MaxTokens > int64(f.context) {
		return completion.Answer{SentBytes: 10}, &completion.Error{Status: 400, Code: "bad_request", Message: "the prompt does not fit the context"}
	}
	var quoted struct{ Note string }
	if err := json.Unmarshal([]byte(turns[1].Content), &quoted); err != nil {
		return completion.Answer{}, err
	}
	if strings.Contains(quoted.Note, "part answer") {
		f.merges++
	} else {
		f.read.WriteString(quoted.Note + " ")
	}
	return completion.Answer{Text: `{"summary":"part answer","tags":["t"],"open_questions":[]}`, PromptTokens: tokens, SentBytes: 10}, nil
}

// E8: a long note is read whole, in requests that fit the context, and every word of it reaches the model once. What the
// limit of requests leaves out is reported.
func TestLongNotes(t *testing.T) {
	for _, perToken := range []float64{0.8, 2, 4} {
		for _, words := range []int{100, 4_000, 12_000, 60_000} {
			t.Run(fmt.Sprintf("%v bytes a token, %d words", perToken, words), func(t *testing.T) {
				var text strings.Builder
				for i := range words {
					switch {
					case i%400 == 399:
						fmt.Fprintf(&text, "w%d\n\n## Heading %d\n\n", i, i)
					case i%40 == 39:
						fmt.Fprintf(&text, "w%d\n\n", i)
					default:
						fmt.Fprintf(&text, "w%d ", i)
					}
				}
				n := note(t, text.String())
				f := &tokenizer{context: 4096, bytesPerToken: perToken}
				e := enricher(nil)
				e.Asker = f
				got, err := e.Note(t.Context(), n)
				if err != nil {
					t.Fatal(err)
				}
				read := strings.Fields(f.read.String())
				if got.Source.Bytes != len(n.Body) || got.Provenance.Calls != f.calls || f.calls > maxCalls || got.Provenance.BytesSent["local"] != int64(10*f.calls) {
					t.Errorf("got %+v after %d calls, want at most %d calls, all counted, and every byte", got, f.calls, maxCalls)
				}
				if got.Truncated != (got.Source.Read < len(n.Body)) {
					t.Errorf("got truncated %v with %d of %d bytes read, want it only for a part", got.Truncated, got.Source.Read, len(n.Body))
				}
				want := strings.Fields(n.Body[:got.Source.Read])
				if strings.Join(read, " ") != strings.Join(want, " ") {
					t.Errorf("the model read %d words, want the %d words that the result counts", len(read), len(want))
				}
				if words <= 4_000 && got.Truncated {
					t.Errorf("got %d of %d bytes read, want all: the note fits %d requests", got.Source.Read, got.Source.Bytes, maxCalls)
				}
			})
		}
	}
}

// E8: the number of requests is known before the first one.
func TestCalls(t *testing.T) {
	e := enricher(&fake{})
	if got := e.Calls(note(t, "short")); got != 1 {
		t.Errorf("got %d calls for a short note, want 1", got)
	}
	long := note(t, strings.Repeat("word ", 8_000))
	announced := e.Calls(long)
	e.Asker = &tokenizer{context: 4096, bytesPerToken: firstRatio}
	got, err := e.Note(t.Context(), long)
	if err != nil || announced < 2 || got.Provenance.Calls > announced+2 {
		t.Errorf("got %d calls (%v), announced %d, want at least 2 announced and at most 2 more made", got.Provenance.Calls, err, announced)
	}
	e.Context = 1024
	if _, err := e.Note(t.Context(), long); err == nil || !strings.Contains(err.Error(), "model.context") {
		t.Errorf("got %v, want a refusal that names model.context", err)
	}
}

// E9: a result names the model that made it, also when the model is replaced during the run.
func TestModelReplaced(t *testing.T) {
	e := enricher(&fake{})
	var version atomic.Int32
	e.Served = func(context.Context) (Served, error) {
		return Served{Model: "m", Version: fmt.Sprint(version.Load()), Artifact: "m"}, nil
	}
	calls := 0
	e.Asker = &fake{answer: func(context.Context, int) (completion.Answer, error) {
		if calls++; calls == 1 {
			version.Add(1)
		}
		return completion.Answer{Text: good}, nil
	}}
	got, err := e.Note(t.Context(), note(t, "Body."))
	if err != nil || calls != 2 || got.Provenance.ModelVersion != "1" || got.Provenance.Artifact != "m" {
		t.Errorf("got version %s after %d calls (%v), want version 1 after 2", got.Provenance.ModelVersion, calls, err)
	}
}

// E7: a batch uses bounded memory, and the request for the first note is sent before the others are read.
func TestBatchMemory(t *testing.T) {
	dir := t.TempDir()
	text := bytes.Repeat([]byte("word "), 20<<10) // 100 KiB
	var paths []string
	for i := range 200 {
		path := filepath.Join(dir, fmt.Sprintf("n%d.md", i))
		if err := os.WriteFile(path, append(text, fmt.Sprint(i)...), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before, most, done := heap(), int64(0), 0
	e := enricher(nil)
	e.Context = 1 << 20
	e.Asker = forgetful{}
	err := Batch(t.Context(), e, paths, 2, Stream{&bytes.Buffer{}}, func(o Outcome) {
		if done++; done%40 == 1 {
			most = max(most, heap()-before)
		}
		if o.Err != nil {
			t.Error(o.Err)
		}
	})
	if err != nil || done != len(paths) || most > 5<<20 {
		t.Errorf("got %d notes and %d KiB more (%v), want %d and at most 5 MiB", done, most>>10, err, len(paths))
	}
}

type forgetful struct{}

func (forgetful) Ask(context.Context, []completion.Message, completion.Options, time.Duration) (completion.Answer, error) {
	return completion.Answer{Text: good}, nil
}

// E7: an interruption ends the batch although a read blocks, and no finished result is lost.
func TestInterruptedWhileReading(t *testing.T) {
	dir := t.TempDir()
	first := filepath.Join(dir, "a.md")
	if err := os.WriteFile(first, []byte("note"), 0o600); err != nil {
		t.Fatal(err)
	}
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	os.Stdin = in // stays: the blocked read may end after this test
	ctx, interrupt := context.WithCancel(t.Context())
	var written strings.Builder
	err = Batch(ctx, enricher(&fake{}), []string{first, Standard}, 1, Stream{&written}, func(Outcome) { interrupt() })
	if !errors.Is(err, context.Canceled) || strings.Count(written.String(), "\n") != 1 {
		t.Errorf("got %v and %q, want the finished result", err, written.String())
	}
	_ = out.Close() // ends the blocked read
}

// A9: a panic in the work on one note is the failure of that note, without its value in the message.
func TestPanicInNote(t *testing.T) {
	paths := notes(t, 3)
	f := &fake{answer: func(_ context.Context, call int) (completion.Answer, error) {
		if call == 2 {
			panic("secret text of a note")
		}
		return completion.Answer{Text: good}, nil
	}}
	var failed []error
	err := Batch(t.Context(), enricher(f), paths, 1, Stream{&strings.Builder{}}, func(o Outcome) {
		if o.Err != nil {
			failed = append(failed, o.Err)
		}
	})
	var panicked *PanicError
	if err != nil || len(failed) != 1 || !errors.As(failed[0], &panicked) || len(panicked.Stack) == 0 || strings.Contains(failed[0].Error(), "secret") {
		t.Errorf("got %v, %v; want one PanicError", err, failed)
	}
}

// E7: a linked folder is searched and links to notes in it are read; a path that cannot be searched is reported and stops no other.
func TestExpandLinks(t *testing.T) {
	dir := t.TempDir()
	vault := filepath.Join(dir, "vault")
	for _, name := range []string{"a.md", "sub/b.md", "closed/c.md"} {
		path := filepath.Join(vault, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("x"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	outside := filepath.Join(dir, "outside.md")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"link.md": outside, "again.md": filepath.Join(vault, "a.md"), "circle": vault, "gone.md": filepath.Join(dir, "gone"),
	} {
		if err := os.Symlink(target, filepath.Join(vault, name)); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(vault, link); err != nil {
		t.Fatal(err)
	}
	unreadable := os.Geteuid() != 0
	if unreadable {
		if err := os.Chmod(filepath.Join(vault, "closed"), 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(filepath.Join(vault, "closed"), 0o700) })
	}
	got, problems, err := Expand(t.Context(), []string{link})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"a.md": true, "again.md": true, "closed/c.md": !unreadable, "gone.md": true, "sub/b.md": true}
	count := 0
	for _, path := range got {
		name, err := filepath.Rel(link, path)
		if err != nil || !want[name] {
			t.Errorf("got %s (%v), want one of %v", path, err, want)
		}
		count++
	}
	// a.md and again.md are one note.
	if wanted := 3 + map[bool]int{false: 1, true: 0}[unreadable]; count != wanted {
		t.Errorf("got %d notes %q, want %d", count, got, wanted)
	}
	reasons := map[string]error{}
	for _, p := range problems {
		reasons[filepath.Base(p.Path)] = p.Err
	}
	if !errors.Is(reasons["circle"], ErrLinkedFolder) || !errors.Is(reasons["link.md"], ErrLinkOut) || unreadable && !errors.Is(reasons["closed"], fs.ErrPermission) {
		t.Errorf("got problems %v, want the circle, the link out, and the closed folder where permissions count", reasons)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Expand(ctx, []string{vault}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the interruption", err)
	}
	if got, _, err := Expand(t.Context(), []string{filepath.Join(vault, "s*", "*.md")}); err != nil || len(got) != 1 {
		t.Errorf("got %q, %v for a pattern, want one note", got, err)
	}
}

// dense is a fake runtime in which a byte of a hostile note, which is quoted as an escape, is almost a token.
func dense(e *Enricher, refusal func() error) *fake {
	f := &fake{}
	f.answer = func(_ context.Context, call int) (completion.Answer, error) {
		content := f.turns[call-1][1].Content
		escaped := int64(12 * strings.Count(content, `\udb40`))
		tokens := (int64(len(content))-escaped)/4 + escaped*9/10
		if int(tokens)+overhead/2 > e.Context-maxTokens {
			return completion.Answer{}, refusal()
		}
		text := good
		if len(e.Vocabulary) > 0 {
			text = strings.Replace(good, `"a"`, `"project-tag-001"`, 1)
		}
		return completion.Answer{Text: text, PromptTokens: tokens + overhead/2}, nil
	}
	return f
}

// E8, T15: a note with many tokens per byte costs requests of its own only. The notes after it are read as before, with
// a large vocabulary too.
func TestDenseNoteBetweenOthers(t *testing.T) {
	for _, c := range []struct{ context, tags int }{{2048, 0}, {4096, 0}, {4096, 128}, {8192, 128}} {
		e := enricher(nil)
		e.Context = c.context
		for i := range c.tags {
			e.Vocabulary = append(e.Vocabulary, fmt.Sprintf("project-tag-%03d", i))
		}
		f := dense(e, func() error {
			return &completion.Error{Status: 400, Message: "the prompt does not fit the context"}
		})
		e.Asker = f
		plain, hostile := note(t, strings.Repeat("Plain prose about a garden. ", 400)), note(t, strings.Repeat("\U000E0041", 20_000))
		for i, n := range []Note{plain, hostile, plain, plain, plain} {
			before := len(f.turns)
			got, err := e.Note(t.Context(), n)
			if err != nil {
				t.Fatalf("context %d, %d tags, note %d: got %v, want a result", c.context, c.tags, i, err)
			}
			if calls := len(f.turns) - before; n.Digest == plain.Digest && (got.Truncated || calls > 16) {
				t.Errorf("context %d, %d tags, note %d: got %d calls, %d of %d bytes, want at most 16 and all", c.context, c.tags, i, calls, got.Source.Read, got.Source.Bytes)
			}
		}
	}
}

// E9: a refusal for another reason than length sends the note once; one of a remote server without a known reason, three
// times at most.
func TestRefusedForAnotherReason(t *testing.T) {
	for _, remote := range []bool{false, true} {
		f := &fake{answer: func(context.Context, int) (completion.Answer, error) {
			return completion.Answer{}, &completion.Error{Status: 400, Code: "request_ends_runtime", Remote: remote}
		}}
		want := 1
		if remote {
			want = remoteTries
		}
		if _, err := enricher(f).Note(t.Context(), note(t, "hello")); err == nil || len(f.turns) != want {
			t.Errorf("remote %v: got %v after %d requests, want an error after %d", remote, err, len(f.turns), want)
		}
	}
}
