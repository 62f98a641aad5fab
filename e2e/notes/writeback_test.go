package notes

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"companion/adapters/completion/enrich"
)

// contents reads every file of a folder.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.Base(name)] = string(data)
	}
	return texts
}

// outside removes the block of enrich from a note, by lines.
func outside(text string) string {
	before, rest, found := strings.Cut(text, "# companion:begin\n")
	_, after, ended := strings.Cut(rest, "# companion:end\n")
	if !found || !ended {
		return ""
	}
	return before + after
}

// E6: --write changes notes between its markers only, and a note that was written is not done again; the command without
// --write changes no note at all.
func TestWriteBack(t *testing.T) {
	far, url := record(t)
	c := newCLI(t, fmt.Sprintf("[lanes.self_hosted]\nbase_url = %q\nmodel = \"m\"\n", url))
	dir := vault(t, 3)
	before := contents(t, dir)
	lane := []string{"enrich", "--lane", "self_hosted", "--consent-id", "c", dir}
	if code, _, stderr := c.run(lane...); code != 0 {
		t.Fatalf("got exit %d, want 0: %s", code, stderr)
	}
	if after := contents(t, dir); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Fatalf("got %q without --write, want the notes unchanged", after)
	}
	write := append([]string{"enrich", "--write", "frontmatter"}, lane[1:]...)
	for round := range 2 {
		requests := len(far.sent())
		code, stdout, stderr := c.run(write...)
		if want := 3 * (1 - round); code != 0 || stdout != "" || len(far.sent())-requests != want {
			t.Fatalf("round %d: got exit %d, %q and %d requests, want 0, nothing and %d: %s", round, code, stdout, len(far.sent())-requests, want, stderr)
		}
		for name, text := range contents(t, dir) {
			if outside(text) != before[name] || !strings.Contains(text, `  summary: "S."`) {
				t.Errorf("%s: got %q, want a block, and outside it %q", name, text, before[name])
			}
		}
	}
	sidecar := append([]string{"enrich", "--write", "sidecar"}, lane[1:]...)
	if code, _, stderr := c.run(sidecar...); code != 0 {
		t.Fatalf("got exit %d, want 0: %s", code, stderr)
	}
	for name := range before {
		if _, err := os.Stat(filepath.Join(dir, name+".enrich.json")); err != nil {
			t.Errorf("got %v, want a sidecar of %s", err, name)
		}
	}
}

// E6: --tags-from binds the tags to those of the vault; --since leaves out older notes.
func TestTagsAndSince(t *testing.T) {
	far, url := record(t)
	c := newCLI(t, fmt.Sprintf("[lanes.self_hosted]\nbase_url = %q\nmodel = \"m\"\n", url))
	dir := vault(t, 2)
	old := filepath.Join(dir, "n00.md")
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-48*time.Hour)); err != nil {
		t.Fatal(err)
	}
	tags := filepath.Join(c.home, "tags.txt")
	if err := os.WriteFile(tags, []byte("garden\nt\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := c.run("enrich", "--lane", "self_hosted", "--consent-id", "c", "--since", "24h", "--tags-from", tags, dir)
	sent := far.sent()
	if code != 0 || len(sent) != 1 || !strings.Contains(sent[0], "Garden 1") || !strings.Contains(sent[0], `"enum":["garden","t"]`) {
		t.Errorf("got exit %d and %q, want one request, about the new note, with the tags: %s", code, sent, stderr)
	}
}

// E7: --watch enriches what changes, once for each text, and ends at an interrupt.
func TestWatch(t *testing.T) {
	_, url := record(t)
	c := newCLI(t, fmt.Sprintf("[lanes.self_hosted]\nbase_url = %q\nmodel = \"m\"\n", url))
	dir := vault(t, 2)
	file := filepath.Join(c.home, "out.jsonl")
	cmd := c.command("enrich", "--lane", "self_hosted", "--consent-id", "c", "--watch", "--write", "frontmatter", "--output", file, dir)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := func(want int) {
		t.Helper()
		var n int
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if data, err := os.ReadFile(file); err == nil {
				if n = bytes.Count(data, []byte("\n")); n >= want {
					return
				}
			}
		}
		t.Fatalf("got %d results, want %d", n, want)
	}
	lines(2)
	if err := os.WriteFile(filepath.Join(dir, "n00.md"), []byte("Another text.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "new.md"), []byte("A new note.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lines(4)
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("got exit %d, want 130: %s", code, errs.String())
	}
	var digests []string
	if err := enrich.Verify(t.Context(), file, func(v enrich.Verified) error {
		digests = append(digests, v.Result.Source.SHA256)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(digests)
	if unique := slices.Compact(slices.Clone(digests)); len(digests) != 4 || len(unique) != 4 {
		t.Errorf("got results of %q, want each of four texts once", digests)
	}
}

// E4: consent that the owner withdraws while a run or a watch goes on stops it before the next request, with the status of a
// refusal.
func TestConsentWithdrawn(t *testing.T) {
	config := func(url string, managed bool) string {
		return fmt.Sprintf("[runtime]\nmax_in_flight = 1\n[lanes]\ndelegate = true\ndelegate_managed = %t\ndelegate_enriched = true\n"+
			"[lanes.openrouter]\nbase_url = %q\nmodel = \"m\"\n", managed, url)
	}
	for _, watch := range []bool{false, true} {
		far, url := record(t)
		c := newCLI(t, config(url, true))
		withdraw := func() {
			if err := os.WriteFile(filepath.Join(c.home, "config.toml"), []byte(config(url, false)), 0o600); err != nil {
				t.Error(err)
			}
		}
		dir := vault(t, 20)
		args := []string{"enrich", "--lane", "openrouter", "--consent-id", "c", "--output", filepath.Join(c.home, "out.jsonl"), dir}
		if watch {
			args = append(args, "--watch")
		}
		cmd := c.command(args...)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		sent := make(chan struct{})
		far.before(func(n int) {
			switch {
			case !watch && n == 3:
				withdraw()
			case watch && n == 20:
				close(sent)
			}
		})
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if watch {
			<-sent
			withdraw()
			if err := os.WriteFile(filepath.Join(dir, "new.md"), []byte("A new note.\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		late.Stop()
		most := map[bool]int{false: 5, true: 20}[watch] // two requests may be on their way
		if got := len(far.sent()); cmd.ProcessState.ExitCode() != 9 || got > most {
			t.Errorf("watch %v: got exit %d and %d requests, want 9 and at most %d: %s", watch, cmd.ProcessState.ExitCode(), got, most, errs.String())
		}
	}
}
