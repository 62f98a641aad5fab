package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

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
			return errors.Join(writeAdditions(env.WorkDir), os.WriteFile(filepath.Join(env.WorkDir, "root.json"), root, 0o600))
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

// X3: every command's help has examples; each of them is a command line that the program accepts, with the flags that it has.
func TestExamples(t *testing.T) {
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		path := cmd.CommandPath()
		if examples[path] == "" {
			t.Errorf("got no example of %q, want one", path)
			return
		}
		for line := range strings.SplitSeq(examples[path], "\n") {
			_, rest, found := strings.Cut(line, "companion")
			if !found {
				t.Errorf("got the example %q, want a call of companion", line)
				continue
			}
			rest, _, _ = strings.Cut(strings.NewReplacer(")\"", "", "\"", "'").Replace(rest), " | ")
			rest, _, _ = strings.Cut(rest, " > ")
			rest, _, _ = strings.Cut(rest, " < ")
			given := strings.Fields(rest)
			root := a.root()
			named, args, err := root.Find(given)
			if err != nil || named.CommandPath() != path && !(cmd.HasSubCommands() && strings.HasPrefix(named.CommandPath(), path+" ")) {
				t.Errorf("got the command %q (%v) in the example %q, want %q", named.CommandPath(), err, line, path)
				continue
			}
			if err := named.ParseFlags(args); err != nil {
				t.Errorf("got %v in the example %q, want known flags", err, line)
			}
		}
		for _, child := range cmd.Commands() {
			visit(child)
		}
	}
	visit(a.root())
}

// X3: man pages are made from the same table as the help: one for each command, with its flags and exit statuses.
func TestManPages(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "man1")
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	root := a.root()
	root.SetArgs([]string{"man", folder})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	pages, err := os.ReadDir(folder)
	commands := 0
	var count func(*cobra.Command)
	count = func(cmd *cobra.Command) {
		commands++
		for _, child := range cmd.Commands() {
			count(child)
		}
	}
	count(root)
	if err != nil || len(pages) != commands {
		t.Errorf("got %d pages, %v; want one for each of %d commands", len(pages), err, commands)
	}
	page, err := os.ReadFile(filepath.Join(folder, "companion-status.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{".TH COMPANION\\-STATUS 1", "\\-\\-exit\\-code\n", "130  interrupted", ".SH EXAMPLES\n", ".BR companion (1)"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("got no %q, want it in\n%s", want, page)
		}
	}
	for _, entry := range pages {
		page, err := os.ReadFile(filepath.Join(folder, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(page)) {
			if request := strings.Fields(line); strings.HasPrefix(line, ".") && !strings.Contains(" .TH .SH .TP .B .BR .nf .fi ", " "+request[0]+" ") {
				t.Errorf("%s: got the request %q, want only those that manPage writes", entry.Name(), line)
			}
		}
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
		short, _, _ := strings.Cut(out.String(), "Examples:")
		for line := range strings.Lines(short) {
			if w := utf8.RuneCountInString(strings.TrimRight(line, "\n")); w > helpWidth && !strings.HasPrefix(line, "      --") && !strings.Contains(line, "companion.prom.tmp") {
				t.Errorf("help of %q has a line of %d columns, want at most %d: %s", cmd.CommandPath(), w, helpWidth, line)
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
