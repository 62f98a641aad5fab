package walls

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/tools/go/packages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// markers are the mailbox types of messages: interfaces by nature.
var markers = []string{"ToLifecycle", "ToProvision", "ToProcess"}

func load(t *testing.T, mode packages.LoadMode, env []string, overlay map[string][]byte, patterns ...string) []*packages.Package {
	t.Helper()
	pkgs, err := packages.Load(&packages.Config{
		Mode: mode, Dir: "../..", Overlay: overlay, Env: append(os.Environ(), env...),
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

// C2, T11: walls 1 to 4 over the imports of the whole program, on every system it is built for.
func TestImports(t *testing.T) {
	for _, system := range []string{"linux", "darwin", "windows"} {
		t.Run(system, func(t *testing.T) {
			g := graph(load(t, imports, []string{"GOOS=" + system, "CGO_ENABLED=0"}, nil, "./..."))
			for _, room := range []string{"adapters/authority", "adapters/door", "adapters/runtime", "actors/authority", "actors/door", "actors/runtime"} {
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

// C1, C2: walls 4 (clock), 5 and 6 over the program's syntax and types.
func TestSyntax(t *testing.T) {
	for _, pkg := range load(t, syntax, nil, nil, "./...") {
		none(t, Clock(pkg))
		none(t, Hands(pkg))
		none(t, SkipsVerification(pkg))
		none(t, RuntimeMessages(pkg, markers))
	}
}

// C2: each wall falls when something is planted behind it.
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
		"runtime to door":     {Graph{"companion/adapters/runtime/probe": {"companion/adapters/door/guard"}}, Wings, "wall 1"},
		"door to authority":   {Graph{"companion/actors/door/control": {"companion/actors/authority/session"}}, Wings, "wall 2"},
		"adapter to actor":    {Graph{"companion/adapters/private": {"companion/actors/mailbox"}}, Wings, "wall 3"},
		"actor to other wing": {Graph{"companion/actors/lifecycle": {"companion/actors/journal"}}, Wings, "wall 3"},
		"pure room does I/O":  {Graph{"companion/fsm": {"os"}}, Purity, "wall 4"},
		"pure room logs":      {Graph{"companion/adapters/door/guard": {"go.uber.org/zap"}}, Purity, "wall 4"},
		"pure room to a room": {Graph{"companion/messages": {"companion/adapters/private"}}, Purity, "wall 4"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if found := test.check(test.graph); len(found) == 0 || !strings.HasPrefix(found[0], test.want) {
				t.Fatalf("found %q, want %s", found, test.want)
			}
		})
	}
	quiet := Graph{
		"companion/actors/runtime/process":      {"companion/adapters/runtime/spawn", "companion/actors/mailbox", "companion/messages"},
		"companion/actors/authority/custody":    {"companion/adapters/authority/keychain"},
		"companion/adapters/authority/keychain": {"github.com/zalando/go-keyring"},
	}
	none(t, append(Wings(quiet), Purity(quiet)...))
}

// C1, C2: planted files, laid over real packages.
func TestPlantedSyntax(t *testing.T) {
	tests := map[string]struct {
		file, source string
		check        func(*packages.Package) []string
	}{
		"clock in a pure room":       {"fsm/planted.go", `package fsm; import "time"; var _ = time.Now`, Clock},
		"program started elsewhere":  {"actors/mailbox/planted.go", `package mailbox; import x "os/exec"; var _ = x.Command`, Hands},
		"listening elsewhere":        {"actors/mailbox/planted.go", `package mailbox; import "net"; var _ = net.Listen`, Hands},
		"listening by configuration": {"actors/mailbox/planted.go", `package mailbox; import "net"; var _ net.ListenConfig`, Hands},
		"no certificate check": {"actors/mailbox/planted.go",
			`package mailbox; import "crypto/tls"; var _ = tls.Config{` + "Insecure" + `SkipVerify: true}`, SkipsVerification},
		"secret in the runtime wing": {"adapters/runtime/source/planted.go",
			`package source; import "companion/messages"; var _ messages.UseLoopbackToken`, forRuntime},
		"handle in the runtime wing": {"adapters/runtime/source/planted.go",
			`package source; import "companion/messages"; var _ messages.Login`, forRuntime},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path, err := filepath.Abs(filepath.Join("../..", test.file))
			if err != nil {
				t.Fatal(err)
			}
			pkgs := load(t, syntax, nil, map[string][]byte{path: []byte(test.source)}, "./"+filepath.Dir(test.file))
			if found := test.check(pkgs[0]); len(found) == 0 {
				t.Fatal("the planted violation was not found")
			}
		})
	}
}

func forRuntime(pkg *packages.Package) []string { return RuntimeMessages(pkg, markers) }
