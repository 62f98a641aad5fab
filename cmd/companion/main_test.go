package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"companion/adapters/authority/tuf/tuftest"
)

// The program runs as itself in the scripts; goleak has no say in a process that ends.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"companion": func() { os.Exit(Main()) }})
}

// X3, X5, X6: the program as a script, in an environment of its own.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("got no scripts, want some: %v", err)
	}
	root := tuftest.New(t).PinnedRoot()
	testscript.Run(t, testscript.Params{
		Files: scripts,
		Setup: func(env *testscript.Env) error {
			for _, name := range []string{"CONFIG_HOME", "DATA_HOME", "STATE_HOME", "RUNTIME_DIR"} {
				env.Setenv("XDG_"+name, filepath.Join(env.WorkDir, "xdg", strings.ToLower(name)))
			}
			env.Setenv("HOME", env.WorkDir)
			return os.WriteFile(filepath.Join(env.WorkDir, "root.json"), root, 0o600)
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"status": expectStatus, "daemon": startDaemon, "lock": holdLock},
	})
}

// expectStatus runs the program and compares its exit status: status CODE ARG...
func expectStatus(ts *testscript.TestScript, neg bool, given []string) {
	if neg || len(given) < 2 {
		ts.Fatalf("usage: status CODE ARG...")
	}
	err := ts.Exec("companion", given[1:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != given[0] {
		ts.Fatalf("companion %s: exit status %s, want %s", strings.Join(given[1:], " "), got, given[0])
	}
}

// X3: every command's help lists its exit statuses and an example of its use line.
func TestEveryHelpListsExitStatuses(t *testing.T) {
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	n := 0
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		n++
		var out bytes.Buffer
		cmd.SetOut(&out)
		if err := cmd.Help(); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"Exit status:", "0    done", "1    failed", "2    wrong usage", "130  interrupted"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("help of %q has no %q, want it", cmd.CommandPath(), want)
			}
		}
		for _, child := range cmd.Commands() {
			visit(child)
		}
	}
	visit(a.root())
	if n < 20 {
		t.Errorf("got %d commands, want at least 20", n)
	}
}
