package process

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"companion/adapters/gguf"
	"companion/adapters/runtime/fileid"
	"companion/adapters/runtime/spawn"
	"companion/adapters/runtime/spawn/spawntest"
	"companion/messages"
)

// R13: the prompt cache is a small share of the free memory and of the limit, and none where the share is not worth it.
func TestCacheSize(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	for name, tt := range map[string]struct{ wanted, limit, free, want int64 }{
		"automatic":                     {-1, 0, 4 * gib, 256 * mib},
		"automatic, much memory":        {-1, 0, 64 * gib, 512 * mib},
		"automatic, little memory":      {-1, 0, 200 * mib, 0},
		"automatic, free is not known":  {-1, 0, 0, 0},
		"automatic, inside a limit":     {-1, 1 * gib, 64 * gib, 128 * mib},
		"automatic, a very small limit": {-1, 64 * mib, 64 * gib, 0},
		"none":                          {0, 0, 64 * gib, 0},
		"given":                         {2 * gib, 0, 1 * gib, 2 * gib},
		"given, inside a limit":         {2 * gib, 4 * gib, 64 * gib, 512 * mib},
	} {
		if got := cacheSize(tt.wanted, tt.limit, tt.free); got != tt.want {
			t.Errorf("%s: got %d, want %d", name, got, tt.want)
		}
	}
}

// R12: a runtime that lists no options is started without them, and its start is reported once.
func TestRuntimeWithoutOptions(t *testing.T) {
	b := newBench(t)
	b.deps.Speculate = true
	b.serve()
	b.spawn(1, map[string]any{"serve": true})
	expect[messages.RuntimeStarted](b)
	if up := expect[messages.BackEndUp](b); up.Speculates {
		t.Errorf("got %+v, want a runtime that does not speculate", up)
	}
	b.quiet()
	b.mailbox <- messages.Kill{Launch: 1}
	if exit := expect[messages.RuntimeExited](b); !exit.Requested {
		t.Errorf("got %+v, want the requested exit", exit)
	}
}

// R14, M9: a sleeping model whose file has changed is reported, and its runtime ends before it can read the file.
func TestModelChangesWhileItSleeps(t *testing.T) {
	b := newBench(t)
	b.serve()
	m := b.spawn(1, map[string]any{"serve": true})
	expect[messages.RuntimeStarted](b)
	expect[messages.BackEndUp](b)
	b.mailbox <- messages.CheckModel{Launch: 1}
	b.mailbox <- messages.CheckModel{Launch: 2}
	b.quiet()
	if err := os.Chtimes(m.Model.Path, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	b.mailbox <- messages.CheckModel{Launch: 2}
	b.quiet()
	b.mailbox <- messages.CheckModel{Launch: 1}
	if got := expect[messages.IdentityChanged](b); got.Launch != 1 || got.Artifact != m.Model.Name {
		t.Errorf("got %+v, want the model of launch 1", got)
	}
	if exit := expect[messages.RuntimeExited](b); exit.Launch != 1 {
		t.Errorf("got %+v, want the exit of launch 1", exit)
	}
}

// R12: a pinned runtime is asked once, also across daemons; a broken list counts as none, an unpinned runtime is
// always asked, and one that ends before it answers is asked again.
func TestOptionsAreRemembered(t *testing.T) {
	path := filepath.Join(spawntest.Dir(t), "options.json")
	pinned := messages.VerifiedRuntime{SHA256: [32]byte{1}, Pinned: true}
	both := spawn.Features{Speculation: true, Sleep: true}
	daemon := func() *Actor { return New(Deps{OptionsPath: path, Log: zaptest.NewLogger(t)}) }
	expect := func(what string, a *Actor, of messages.VerifiedRuntime, want spawn.Features, wanted bool) {
		t.Helper()
		if got, found := a.recall(of); found != wanted || found && got != want {
			t.Errorf("%s: got %+v, %v; want %+v, %v", what, got, found, want, wanted)
		}
	}
	first := daemon()
	expect("nothing yet", first, pinned, both, false)
	first.remember(pinned, &both)
	expect("asked", first, pinned, both, true)
	expect("in the next daemon", daemon(), pinned, both, true)
	expect("another runtime", daemon(), messages.VerifiedRuntime{SHA256: [32]byte{2}, Pinned: true}, both, false)
	unpinned := messages.VerifiedRuntime{}
	first.remember(unpinned, &both)
	expect("unpinned", first, unpinned, both, false)
	first.remember(pinned, nil)
	expect("forgotten", daemon(), pinned, both, false)
	for i := range byte(20) {
		first.remember(messages.VerifiedRuntime{SHA256: [32]byte{3, i}, Pinned: true}, &both)
	}
	if len(first.features) > rememberedRuntimes {
		t.Errorf("got %d entries, want at most %d", len(first.features), rememberedRuntimes)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect("a broken list", daemon(), pinned, both, false)
	if err := os.WriteFile(path, []byte("null"), 0o600); err != nil {
		t.Fatal(err)
	}
	last := daemon()
	expect("the list null", last, pinned, both, false)
	last.remember(pinned, &both)
	expect("asked after the list null", daemon(), pinned, both, true)
	if data, _ := os.ReadFile(path); strings.Contains(string(data), "0100000000") {
		t.Error("the list has a digest, want none")
	}
}

// R5: the memory of a launch is known before the model is loaded, where its header can be read.
func TestExpectedMemory(t *testing.T) {
	a := New(Deps{Log: zaptest.NewLogger(t)})
	m := messages.VerifiedModel{SHA256: [32]byte{1}, Identity: messages.FileIdentity{Size: 1000}}
	spec := spawn.Spec{Context: 10, MaxInFlight: 3, PromptCache: 50}
	if got := a.expected(m, spec); got != 0 {
		t.Errorf("of a file that cannot be read: got %d, want 0", got)
	}
	a.headers[m.SHA256] = readable(t)
	token := a.headers[m.SHA256].KVBytes()
	if got, want := a.expected(m, spec), 1000+token*30+50; got != want || token == 0 {
		t.Errorf("got %d with %d a token, want %d", got, token, want)
	}
	spec.ShareContext = true
	if got, want := a.expected(m, spec), 1000+token*10+50; got != want {
		t.Errorf("of one context for all: got %d, want %d", got, want)
	}
}

// M9: a header is read from the verified file only. A pipe at its place is refused at once, and a file of another identity
// says nothing.
func TestHeaderOfTheVerifiedFile(t *testing.T) {
	path := filepath.Join(spawntest.Dir(t), "model.gguf")
	if err := os.WriteFile(path, headerBytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	id, err := fileid.Of(file)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	m := messages.VerifiedModel{Name: "m", Path: path, Identity: id}
	if h, err := readHeader(m); err != nil || h.KVBytes() != 512 {
		t.Fatalf("the verified file: got %d bytes a token, %v; want 512", h.KVBytes(), err)
	}
	if err := os.Chtimes(path, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if h, err := readHeader(m); !errors.Is(err, spawn.ErrIdentityChanged) || h.KVBytes() != 0 {
		t.Errorf("a changed file: got %d bytes a token, %v; want %v", h.KVBytes(), err, spawn.ErrIdentityChanged)
	}
	if err := errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() { _, err := readHeader(m); read <- err }()
	select {
	case err := <-read:
		if !errors.Is(err, spawn.ErrIdentityChanged) {
			t.Errorf("a pipe: got %v, want %v", err, spawn.ErrIdentityChanged)
		}
	case <-time.After(10 * time.Second):
		t.Error("a pipe: got a read that blocks, want a refusal")
		if w, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil { // ends the read
			_ = w.Close()
		}
		<-read
	}
}

// R12: what a runtime without a whole list of its options has is not remembered, so that the next start asks it again.
func TestBrokenListIsNotRemembered(t *testing.T) {
	b := newBench(t)
	b.deps.Speculate = true
	b.deps.OptionsPath = filepath.Join(spawntest.Dir(t), "options.json")
	b.serve()
	b.spawn(1, map[string]any{"serve": true}) // asked for its options, it exits with 1
	expect[messages.RuntimeStarted](b)
	expect[messages.BackEndUp](b)
	if data, err := os.ReadFile(b.deps.OptionsPath); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got the list %q, %v; want none", data, err)
	}
	b.mailbox <- messages.Kill{Launch: 1}
	expect[messages.RuntimeExited](b)
}

// readable is the header of a model of 2 layers with 4 heads of 16 values each: 2 × 4 × (16 + 16) × 2 bytes a token.
func readable(t *testing.T) gguf.Header {
	t.Helper()
	h, err := gguf.Read(bytes.NewReader(headerBytes()))
	if err != nil || h.KVBytes() != 512 {
		t.Fatalf("got %d bytes a token, %v; want 512", h.KVBytes(), err)
	}
	return h
}

func headerBytes() []byte {
	le := binary.LittleEndian
	text := func(b []byte, s string) []byte { return append(le.AppendUint64(b, uint64(len(s))), s...) }
	b := le.AppendUint64(le.AppendUint64(le.AppendUint32([]byte("GGUF"), 3), 0), 4)
	b = text(le.AppendUint32(text(b, "general.architecture"), 8), "x")
	for name, value := range map[string]uint32{"block_count": 2, "attention.head_count": 4, "embedding_length": 64} {
		b = le.AppendUint32(le.AppendUint32(text(b, "x."+name), 4), value)
	}
	return b
}
