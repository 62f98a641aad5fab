package walls

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/tools/go/packages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// markers are the mailbox types of messages, which are interfaces.
var markers = []string{"ToLifecycle", "ToProvision", "ToProcess"}

func load(t *testing.T, mode packages.LoadMode, env []string, planted map[string][]byte, patterns ...string) []*packages.Package {
	t.Helper()
	pkgs, err := packages.Load(&packages.Config{
		Mode: mode, Dir: "../..", Overlay: planted, Env: append(os.Environ(), env...),
	}, patterns...)
	if err != nil {
		t.Fatal(err)
	}
	if packages.PrintErrors(pkgs) > 0 || len(pkgs) == 0 {
		t.Fatalf("the program does not load (%d packages)", len(pkgs))
	}
	return pkgs
}

func graph(pkgs []*packages.Package) Graph {
	g := Graph{}
	packages.Visit(pkgs, nil, func(pkg *packages.Package) {
		for _, imported := range pkg.Imports {
			g[pkg.PkgPath] = append(g[pkg.PkgPath], imported.PkgPath)
		}
		slices.Sort(g[pkg.PkgPath])
	})
	return g
}

const (
	imports = packages.NeedName | packages.NeedImports | packages.NeedDeps
	// Without NeedDeps the types of other packages come from the build cache, not from their source.
	syntax = packages.NeedName | packages.NeedImports | packages.NeedFiles | packages.NeedExportFile |
		packages.NeedSyntax | packages.NeedTypes | packages.NeedTypesInfo
)

func none(t *testing.T, found []string) {
	t.Helper()
	for _, violation := range found {
		t.Error(violation)
	}
}

// program lists the packages that are built for every system.
var program = []string{"./cmd/companion", "./supervisor", "./actors/...", "./adapters/...", "./fsm", "./messages"}

// C2, T11: walls 1 to 4 over the imports of the whole program, as it is built for every system: for Linux
// with C, which brings in the GPU's library, and without.
func TestImports(t *testing.T) {
	for _, build := range []string{"GOOS=linux CGO_ENABLED=1", "GOOS=linux CGO_ENABLED=0", "GOOS=darwin CGO_ENABLED=0", "GOOS=windows CGO_ENABLED=0"} {
		t.Run(build, func(t *testing.T) {
			g := graph(load(t, imports, strings.Fields(build), nil, "./..."))
			if nvml := slices.Contains(g[module+"adapters/runtime/probe"], "github.com/NVIDIA/go-nvml/pkg/nvml"); nvml != strings.HasSuffix(build, "CGO_ENABLED=1") {
				t.Errorf("the GPU's library is in the graph: %v", nvml)
			}
			for _, room := range []string{"adapters/lowlatency", "adapters/authority", "adapters/door", "adapters/runtime", "actors/authority", "actors/door", "actors/runtime"} {
				if !slices.ContainsFunc(sorted(g), func(p string) bool { return under(p, module+room) }) {
					t.Errorf("there is no package under %s: this wall guards nothing", room)
				}
			}
			for _, room := range pureRooms {
				if _, ok := g[room]; !ok {
					t.Errorf("there is no package %s: wall 4 guards nothing", room)
				}
			}
			none(t, Wings(g))
			none(t, Purity(g))
		})
	}
}

// C1, C2: walls 4 (clock and output), 5 and 6 over the program's syntax and types, on every system. X5: no
// key of the configuration is without a reader.
func TestSyntax(t *testing.T) {
	for system, patterns := range map[string][]string{"linux": {"./..."}, "darwin": program, "windows": program} {
		t.Run(system, func(t *testing.T) {
			var env []string
			if system != runtime.GOOS {
				env = []string{"GOOS=" + system, "CGO_ENABLED=0"}
			}
			pkgs := load(t, syntax, env, nil, patterns...)
			for _, pkg := range pkgs {
				none(t, Deeds(pkg))
				none(t, Hands(pkg))
				none(t, SkipsVerification(pkg))
				none(t, RuntimeMessages(pkg, markers))
				none(t, ActorShape(pkg))
			}
			none(t, Unread(pkgs))
			without := slices.DeleteFunc(pkgs, func(p *packages.Package) bool { return p.PkgPath == module+"supervisor" })
			if found := Unread(without); !slices.Contains(found, "no package reads settings.Hub.FirstParty") {
				t.Errorf("without its reader a key is taken to be read: %q", found)
			}
		})
	}
}

// C2: each rule finds a planted violation.
func TestPlantedImports(t *testing.T) {
	tests := map[string]struct {
		graph Graph
		check func(Graph) []string
		want  string
	}{
		"runtime to authority, directly": {Graph{"companion/actors/runtime/process": {"companion/adapters/authority/keychain"}}, Wings, "wall 1"},
		"runtime to a keychain library, through others": {Graph{
			"companion/adapters/runtime/spawn": {"example/helper"}, "example/helper": {"github.com/zalando/go-keyring"},
		}, Wings, "wall 1"},
		"runtime to door":                {Graph{"companion/adapters/runtime/probe": {"companion/adapters/door/guard"}}, Wings, "wall 1"},
		"door to authority":              {Graph{"companion/actors/door/control": {"companion/actors/authority/session"}}, Wings, "wall 2"},
		"daemon to the browser":          {Graph{"companion/supervisor": {"companion/adapters/authority/browser"}}, Wings, "wall 6"},
		"lowlatency to any room":         {Graph{"companion/adapters/lowlatency": {"companion/messages"}}, Wings, "wall 1"},
		"adapter to actor":               {Graph{"companion/adapters/privatefs": {"companion/actors/actorkit"}}, Wings, "wall 3"},
		"adapter to other wing":          {Graph{"companion/adapters/authority/tuf": {"companion/adapters/runtime/archive"}}, Wings, "wall 3"},
		"actor to other wing":            {Graph{"companion/actors/lifecycle": {"companion/actors/logfile"}}, Wings, "wall 3"},
		"pure room does I/O":             {Graph{"companion/fsm": {"os"}}, Purity, "wall 4"},
		"pure room speaks TLS":           {Graph{"companion/adapters/door/guard": {"crypto/tls"}}, Purity, "wall 4"},
		"pure room to another's library": {Graph{"companion/adapters/completion/lane": {"github.com/cenkalti/backoff/v5"}}, Purity, "wall 4"},
		"pure room logs":                 {Graph{"companion/adapters/door/guard": {"go.uber.org/zap"}}, Purity, "wall 4"},
		"pure room to a room":            {Graph{"companion/messages": {"companion/adapters/privatefs"}}, Purity, "wall 4"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if found := test.check(test.graph); len(found) == 0 || !strings.HasPrefix(found[0], test.want) {
				t.Fatalf("found %q, want %s", found, test.want)
			}
		})
	}
	quiet := Graph{
		"companion/actors/runtime/process":      {"companion/adapters/runtime/spawn", "companion/actors/actorkit", "companion/messages"},
		"companion/actors/authority/custody":    {"companion/adapters/authority/keychain"},
		"companion/adapters/authority/keychain": {"github.com/zalando/go-keyring"},
		"companion/cmd/companion":               {"companion/supervisor", "companion/adapters/authority/browser"},
	}
	none(t, append(Wings(quiet), Purity(quiet)...))
}

// C2: a violation in a file of another build is found too.
func TestPlantedElsewhere(t *testing.T) {
	for name, test := range map[string]struct{ env, file, source string }{
		"with C":     {"GOOS=linux CGO_ENABLED=1", "adapters/runtime/probe/planted.go", "//go:build linux && cgo\n\npackage probe; import _ \"companion/adapters/authority/keychain\""},
		"on Windows": {"GOOS=windows CGO_ENABLED=0", "adapters/runtime/probe/planted_windows.go", `package probe; import _ "companion/adapters/authority/keychain"`},
	} {
		t.Run(name, func(t *testing.T) {
			pkgs := load(t, imports, strings.Fields(test.env), overlay(t, test.file, test.source), "./"+filepath.Dir(test.file))
			if found := Wings(graph(pkgs)); len(found) == 0 || !strings.HasPrefix(found[0], "wall 1") {
				t.Errorf("found %q", found)
			}
		})
	}
	for system, source := range map[string]string{
		"darwin":  `package actorkit; import "os/exec"; var _ = exec.Command`,
		"windows": `package actorkit; import "net"; var _ = net.Listen`,
	} {
		t.Run("syntax on "+system, func(t *testing.T) {
			file := "actors/actorkit/planted_" + system + ".go"
			pkgs := load(t, syntax, []string{"GOOS=" + system, "CGO_ENABLED=0"}, overlay(t, file, source), "./"+filepath.Dir(file))
			if len(Hands(pkgs[0])) == 0 {
				t.Error("the planted violation was not found, want it reported")
			}
		})
	}
}

func overlay(t *testing.T, file, source string) map[string][]byte {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../..", file))
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{path: []byte(source)}
}

// C1, C2: planted files, overlaid on real packages.
func TestPlantedSyntax(t *testing.T) {
	tests := map[string]struct {
		file, source string
		check        func(*packages.Package) []string
	}{
		"clock in a pure room":       {"fsm/planted.go", `package fsm; import "time"; var _ = time.Now`, Deeds},
		"output of a pure room":      {"fsm/planted.go", `package fsm; import "fmt"; func f() { fmt.Println() }`, Deeds},
		"timer in a pure room":       {"fsm/planted.go", `package fsm; import "context"; var _ = context.WithTimeout`, Deeds},
		"program started elsewhere":  {"actors/actorkit/planted.go", `package actorkit; import x "os/exec"; var _ = x.Command`, Hands},
		"listening elsewhere":        {"actors/actorkit/planted.go", `package actorkit; import "net"; var _ = net.Listen`, Hands},
		"listening by configuration": {"actors/actorkit/planted.go", `package actorkit; import "net"; var _ net.ListenConfig`, Hands},
		"listening by a server":      {"actors/actorkit/planted.go", `package actorkit; import "net/http"; var _ = (&http.Server{}).ListenAndServe`, Hands},
		"listening for datagrams":    {"actors/actorkit/planted.go", `package actorkit; import "net"; var _ = net.ListenUnixgram`, Hands},
		"listening to many":          {"actors/actorkit/planted.go", `package actorkit; import "net"; var _ = net.ListenMulticastUDP`, Hands},
		"listening by hand":          {"adapters/runtime/spawn/planted.go", `package spawn; import "syscall"; var _ = syscall.Listen`, Hands},
		"binding by hand":            {"actors/actorkit/planted.go", `package actorkit; import "syscall"; var _ = syscall.Bind`, Hands},
		"program as a value":         {"actors/actorkit/planted.go", `package actorkit; import "os/exec"; func f() { c := exec.Cmd{}; _ = c.Start() }`, Hands},
		"program of the system":      {"actors/actorkit/planted.go", `package actorkit; import "os"; var _ = os.StartProcess`, Hands},
		"program by hand":            {"actors/actorkit/planted.go", `package actorkit; import "syscall"; var _ = syscall.ForkExec`, Hands},
		"another program":            {"actors/actorkit/planted.go", `package actorkit; import "syscall"; var _ = syscall.Exec`, Hands},
		"command of the program":     {"cmd/companion/planted.go", `package main; import "os/exec"; var _ = exec.Command`, Hands},
		"no certificate check": {"actors/actorkit/planted.go",
			`package actorkit; import "crypto/tls"; var _ = tls.Config{` + "Insecure" + `SkipVerify: true}`, SkipsVerification},
		"secret in the runtime wing": {"adapters/runtime/download/planted.go",
			`package download; import "companion/messages"; var _ messages.UseLoopbackToken`, forRuntime},
		"handle in the runtime wing": {"adapters/runtime/download/planted.go",
			`package download; import "companion/messages"; var _ messages.Login`, forRuntime},
		"another name for the log": {"actors/actorkit/planted.go",
			`package actorkit; import "go.uber.org/zap"; type Deps struct { Logger *zap.Logger }`, ActorShape},
		"another name for the inbox": {"actors/actorkit/planted.go",
			`package actorkit; type Deps struct { Mailbox <-chan int }`, ActorShape},
		"another end at the context's end": {"actors/actorkit/planted.go",
			`package actorkit; import "context"; type a struct{}; func (a) run(ctx context.Context) error { select { case <-ctx.Done(): return context.Cause(ctx) } }`, ActorShape},
		"Serve returns nil": {"actors/actorkit/planted.go",
			`package actorkit; import "context"; type a struct{}; func (a) Serve(ctx context.Context) error { return nil }`, ActorShape},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pkgs := load(t, syntax, nil, overlay(t, test.file, test.source), "./"+filepath.Dir(test.file))
			if found := test.check(pkgs[0]); len(found) == 0 {
				t.Fatal("the planted violation was not found, want it reported")
			}
		})
	}
}

func forRuntime(pkg *packages.Package) []string { return RuntimeMessages(pkg, markers) }
