package artifact

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"companion/messages"
)

func listed(path string) messages.ArchiveFile { return messages.ArchiveFile{Path: path} }

func program(path string) messages.ArchiveFile {
	return messages.ArchiveFile{Path: path, Executable: true}
}

func linked(path, target string) messages.ArchiveFile {
	return messages.ArchiveFile{Path: path, LinkTarget: target}
}

func refused(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Reason == messages.ReasonMalformedSpec
}

// numbered returns a list of n files, one of them the program a.
func numbered(n int) []messages.ArchiveFile {
	files := []messages.ArchiveFile{program("a")}
	for i := range n - 1 {
		files = append(files, listed(fmt.Sprintf("d/%d", i)))
	}
	return files
}

// M12: what no archive may list.
func TestCheckFilesRefuses(t *testing.T) {
	ok := program("a")
	for name, list := range map[string][]messages.ArchiveFile{
		"empty":           nil,
		"too many":        numbered(MaxFiles + 1),
		"absolute":        {ok, listed("/b")},
		"dots":            {ok, listed("../b")},
		"dot":             {ok, listed(".")},
		"empty path":      {ok, listed("")},
		"double slash":    {ok, listed("b//c")},
		"trailing slash":  {ok, listed("b/")},
		"backslash":       {ok, listed(`b\c`)},
		"drive":           {ok, listed("c:b")},
		"nul":             {ok, listed("b\x00")},
		"not ASCII":       {ok, listed("bü")},
		"twice":           {ok, listed("a")},
		"case":            {ok, listed("A")},
		"file and folder": {ok, listed("a/b")},
		"link out":        {ok, linked("b", "../a")},
		"link absolute":   {ok, linked("b", "/a")},
		"link dangling":   {ok, linked("b", "c")},
		"link to folder":  {ok, listed("d/x"), linked("b", "d")},
		"link loop":       {ok, linked("b", "c"), linked("c", "b")},
		"link to itself":  {ok, linked("b", "b")},
		"link with size":  {ok, {Path: "b", LinkTarget: "a", Size: 1}},
		"negative":        {ok, {Path: "b", Size: -1}},
		"too large":       {ok, {Path: "b", Size: MaxUnpacked}, {Path: "c", Size: 1}},
		"too long":        {ok, listed(strings.Repeat("x", MaxPath+1))},
	} {
		if err := CheckFiles(list, "a"); !refused(err) {
			t.Errorf("%s: got %v, want malformed_spec", name, err)
		}
	}
	good := []messages.ArchiveFile{program("bin/llama-server"), listed("lib/l.so.1"), linked("lib/l.so", "l.so.1"), linked("bin/l.so", "../lib/l.so"), listed("LICENSE")}
	for name, want := range map[string]bool{"bin/llama-server": true, "LICENSE": false, "none": false, "": false, "../bin/llama-server": false} {
		if err := CheckFiles(good, name); (err == nil) != want || err != nil && !refused(err) {
			t.Errorf("executable %q: got %v, want accepted: %t", name, err, want)
		}
	}
	if err := CheckFiles(numbered(MaxFiles), "a"); err != nil {
		t.Errorf("as many files as are allowed: got %v", err)
	}
}

func model() messages.Artifact {
	return messages.Artifact{
		Name: "m", Kind: messages.KindModel, SHA256: [32]byte{1}, Size: 1,
		URLs: []string{"https://models.example/v1/m"}, Origins: []string{"https://models.example/v1/"},
	}
}

func sources(n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("https://models.example/v1/%d", i))
	}
	return all
}

// M2, M4, M12: each field at its limit, and beyond it.
func TestCheck(t *testing.T) {
	runtime := func(a *messages.Artifact) {
		a.Kind, a.Format, a.Executable, a.Files = messages.KindRuntime, "zip", "a", []messages.ArchiveFile{program("a")}
	}
	for name, c := range map[string]struct {
		change func(*messages.Artifact)
		good   bool
	}{
		"model":                 {func(*messages.Artifact) {}, true},
		"runtime":               {runtime, true},
		"largest":               {func(a *messages.Artifact) { a.Size = MaxSize }, true},
		"chunks":                {func(a *messages.Artifact) { chunked(a, 3*MinChunk+1, MinChunk, 4) }, true},
		"one chunk":             {func(a *messages.Artifact) { chunked(a, 1, MinChunk, 1) }, true},
		"most chunks":           {func(a *messages.Artifact) { chunked(a, MaxSize, MaxChunk, MaxChunks) }, true},
		"a chunk too few":       {func(a *messages.Artifact) { chunked(a, 3*MinChunk+1, MinChunk, 3) }, false},
		"a chunk too many":      {func(a *messages.Artifact) { chunked(a, 3*MinChunk, MinChunk, 4) }, false},
		"chunks too small":      {func(a *messages.Artifact) { chunked(a, MinChunk-1, MinChunk-1, 1) }, false},
		"chunks too large":      {func(a *messages.Artifact) { chunked(a, MaxChunk+1, MaxChunk+1, 1) }, false},
		"chunks of no size":     {func(a *messages.Artifact) { chunked(a, 1, 0, 1) }, false},
		"chunks without digest": {func(a *messages.Artifact) { chunked(a, 1, MinChunk, 0) }, false},
		"too large":             {func(a *messages.Artifact) { a.Size = MaxSize + 1 }, false},
		"empty":                 {func(a *messages.Artifact) { a.Size = 0 }, false},
		"most URLs":             {func(a *messages.Artifact) { a.URLs = sources(MaxSources) }, true},
		"too many URLs":         {func(a *messages.Artifact) { a.URLs = sources(MaxSources + 1) }, false},
		"too many origins":      {func(a *messages.Artifact) { a.Origins = append(a.Origins, sources(MaxSources)...) }, false},
		"no origin":             {func(a *messages.Artifact) { a.Origins = nil }, false},
		"no name":               {func(a *messages.Artifact) { a.Name = "" }, false},
		"no digest":             {func(a *messages.Artifact) { a.SHA256 = [32]byte{} }, false},
		"no kind":               {func(a *messages.Artifact) { a.Kind = "" }, false},
		"model with a format":   {func(a *messages.Artifact) { a.Format = "zip" }, false},
		"runtime, other format": {func(a *messages.Artifact) { runtime(a); a.Format = "7z" }, false},
		"runtime, embedding":    {func(a *messages.Artifact) { runtime(a); a.Embedding = true }, false},
		"runtime without files": {func(a *messages.Artifact) { runtime(a); a.Files = nil }, false},
		"most files":            {func(a *messages.Artifact) { runtime(a); a.Files = numbered(MaxFiles) }, true},
		"too many files":        {func(a *messages.Artifact) { runtime(a); a.Files = numbered(MaxFiles + 1) }, false},
	} {
		a := model()
		c.change(&a)
		if err := Check(a); (err == nil) != c.good || err != nil && !refused(err) {
			t.Errorf("%s: got %v, want accepted: %t", name, err, c.good)
		}
	}
}

// M12: digests and links of a manifest's list.
func TestFiles(t *testing.T) {
	digest := strings.Repeat("ab", 32)
	for name, c := range map[string]struct {
		file messages.TargetFile
		good bool
	}{
		"file":               {messages.TargetFile{Path: "a", SHA256: digest}, true},
		"link":               {messages.TargetFile{Path: "a", Link: "b"}, true},
		"no digest":          {messages.TargetFile{Path: "a"}, false},
		"short digest":       {messages.TargetFile{Path: "a", SHA256: digest[2:]}, false},
		"upper case":         {messages.TargetFile{Path: "a", SHA256: strings.ToUpper(digest)}, false},
		"link with a digest": {messages.TargetFile{Path: "a", Link: "b", SHA256: digest}, false},
		"executable link":    {messages.TargetFile{Path: "a", Link: "b", Executable: true}, false},
	} {
		if _, err := Files([]messages.TargetFile{c.file}); (err == nil) != c.good || err != nil && !refused(err) {
			t.Errorf("%s: got %v, want accepted: %t", name, err, c.good)
		}
	}
}

func chunked(a *messages.Artifact, size, chunkSize int64, chunks int) {
	a.Size, a.ChunkSize, a.Chunks = size, chunkSize, make([][32]byte, chunks)
}

// M14: chunks have 16 to 64 MiB, and a client accepts what a publisher chooses for any size.
func TestChunkSize(t *testing.T) {
	for size, want := range map[int64]int64{
		1: 0, 16 << 20: 0, 16<<20 + 1: 16 << 20, 8 << 30: 16 << 20, 8<<30 + 1: 32 << 20, 16<<30 + 1: 64 << 20, MaxSize: 64 << 20,
	} {
		got := ChunkSize(size)
		if got != want {
			t.Errorf("%d bytes: got chunks of %d, want %d", size, got, want)
		}
		if got == 0 {
			continue
		}
		a := model()
		chunked(&a, size, got, CountChunks(size, got))
		if err := Check(a); err != nil {
			t.Errorf("%d bytes: got %v, want a valid artifact", size, err)
		}
	}
}

// M14: a digest that is not 64 lower-case hex digits is refused, and so are too many.
func TestChunks(t *testing.T) {
	good := strings.Repeat("ab", 32)
	if got, err := Chunks([]string{good}); err != nil || len(got) != 1 || got[0][0] != 0xab {
		t.Errorf("got %v, %v, want one digest", got, err)
	}
	for name, list := range map[string][]string{
		"short": {good[2:]}, "long": {good + "ab"}, "capitals": {strings.ToUpper(good)}, "no hex": {good[1:] + "g"}, "empty": {""},
		"too many": make([]string, MaxChunks+1),
	} {
		if _, err := Chunks(list); !refused(err) {
			t.Errorf("%s: got %v, want malformed_spec", name, err)
		}
	}
}
