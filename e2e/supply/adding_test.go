package supply

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"companion/e2e/harness"
)

// remains are the files in the folder of imports.
func remains(t *testing.T, c *harness.Companion) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(c.Data(), "adding"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// M15, M16: an `add` that ends by Ctrl-C leaves nothing; what a killed one leaves is removed by the next `add` and by `prune`,
// and the user's file has its mode again. The file is added all the same afterwards.
func TestAddKilled(t *testing.T) {
	c := harness.Alone(t, "")
	model := copied(t, c, harness.Instructed(t).File, "smol.gguf")
	c.Must("add", harness.Parts(t).Runtime.File)
	kill := func(signal string, flags string) {
		t.Helper()
		// --foreground: one signal. A second Ctrl-C ends the command at once.
		script := fmt.Sprintf("timeout --foreground -s %s 0.%03d companion add %s smol.gguf || true", signal, 10+rand.IntN(300), flags)
		if r := c.Shell(c.Home, script); r.Code != 0 {
			t.Fatalf("%s: got exit %d, %s, want 0", script, r.Code, r.Stderr)
		}
		if left := remains(t, c); signal == "INT" && len(left) != 0 {
			t.Errorf("after Ctrl-C (%s): got %v, want nothing left", script, left)
		}
	}
	for i := range 12 {
		kill([]string{"INT", "KILL"}[i%2], []string{"--copy", ""}[i/2%2])
	}
	c.Must("add", model)
	if left := remains(t, c); len(left) != 0 {
		t.Errorf("after the next add: got %v, want nothing left", left)
	}
	c.Must("remove", "smol")
	for tries := 0; len(remains(t, c)) == 0; tries++ {
		if tries == 100 {
			t.Fatal("got no remains of 100 killed commands, want some")
		}
		kill("KILL", "--copy")
	}
	c.Start()
	if text := c.Must("prune", "--dry-run"); !strings.Contains(text, "partial") {
		t.Errorf("got %q, want the remains listed", text)
	}
	c.Must("prune")
	if left := remains(t, c); len(left) != 0 {
		t.Errorf("after prune: got %v, want nothing left", left)
	}
	c.Must("add", model)
	if status := c.Available(); status.Model.Name != "smol" {
		t.Errorf("got %+v, want smol", status.Model)
	}
}

// M15, M16: two commands that add at the same time do not pass disk.budget together: one is refused, with the numbers.
func TestAddsWithinBudget(t *testing.T) {
	c := harness.Alone(t, "[disk]\nbudget = \"140MiB\"\n")
	copied(t, c, harness.Instructed(t).File, "smol.gguf")
	data, err := os.ReadFile(filepath.Join(c.Home, "smol.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.Home, "other.gguf"), append(data, 0), 0o600); err != nil {
		t.Fatal(err)
	}
	r := c.Shell(c.Home, `codes=
for f in smol other; do companion add --copy $f.gguf & pids="${pids:-} $!"; done
for p in $pids; do wait $p && codes="$codes 0" || codes="$codes $?"; done
echo "codes:$codes"`)
	if !strings.Contains(r.Stdout, "codes: 0 1") && !strings.Contains(r.Stdout, "codes: 1 0") {
		t.Errorf("got %s%s, want one added and one refused", r.Stdout, r.Stderr)
	}
	if !strings.Contains(r.Stderr, "94 MiB are used, but disk.budget is 140 MiB (over_budget)") {
		t.Errorf("got %s, want over_budget with the numbers", r.Stderr)
	}
	if left := remains(t, c); len(left) != 0 {
		t.Errorf("got %v, want nothing left", left)
	}
}
