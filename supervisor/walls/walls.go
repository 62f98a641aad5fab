// Package walls contains the rules about imports, syntax and types of the program; its tests apply them and
// fail the build (C2). For each rule a test plants a violation that the rule must find.
package walls

import (
	"fmt"
	"go/ast"
	"go/types"
	"slices"
	"sort"
	"strings"

	"golang.org/x/tools/go/packages"
)

// Graph maps a package path to the packages that it imports directly.
type Graph map[string][]string

// Reach returns a shortest chain of imports from package from to the first package for which bad
// holds, or nil. The starting package itself does not count.
func (g Graph) Reach(from string, bad func(pkg string) bool) []string {
	chains := [][]string{{from}}
	seen := map[string]bool{from: true}
	for len(chains) > 0 {
		chain := chains[0]
		chains = chains[1:]
		for _, next := range g[chain[len(chain)-1]] {
			if seen[next] {
				continue
			}
			seen[next] = true
			longer := append(slices.Clone(chain), next)
			if bad(next) {
				return longer
			}
			chains = append(chains, longer)
		}
	}
	return nil
}

const module = "companion/"

func inWing(pkg, wing string) bool {
	for _, room := range []string{"adapters/", "actors/"} {
		root := module + room + wing
		if pkg == root || strings.HasPrefix(pkg, root+"/") {
			return true
		}
	}
	return false
}

func under(pkg string, roots ...string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		return pkg == root || strings.HasPrefix(pkg, root+"/")
	})
}

// secretLibraries are the libraries that only the authority wing may link: keychain and OAuth (C2).
var secretLibraries = []string{
	"github.com/zalando/go-keyring", "golang.org/x/oauth2", "github.com/ory/fosite", "github.com/theupdateframework/go-tuf",
}

// Wings finds imports that cross walls 1, 2 and 3: the runtime wing reaches neither authority nor
// door nor a library that keeps secrets; the door wing never reaches authority; no actor reaches the browser;
// adapters import no actor; adapters of different wings, and actors of different wings, never import each
// other. The package lowlatency, which all wings import, imports nothing of this module.
func Wings(g Graph) []string {
	var found []string
	rule := func(pkg, text string, bad func(string) bool) {
		if chain := g.Reach(pkg, bad); chain != nil {
			found = append(found, fmt.Sprintf("%s: %s", text, strings.Join(chain, " → ")))
		}
	}
	for _, pkg := range sorted(g) {
		if !strings.HasPrefix(pkg, module) {
			continue
		}
		if inWing(pkg, "runtime") {
			rule(pkg, "wall 1: runtime reaches authority, door or their libraries", func(p string) bool {
				return inWing(p, "authority") || inWing(p, "door") || under(p, secretLibraries...)
			})
		}
		if inWing(pkg, "door") {
			rule(pkg, "wall 2: door reaches authority", func(p string) bool {
				return inWing(p, "authority") || under(p, secretLibraries...)
			})
		}
		if under(pkg, module+"actors", module+"supervisor") {
			// The browser is started by the command line alone, in the user's own session (O12): a daemon that runs as a
			// service has no display, and its end would take a browser that it started with it.
			rule(pkg, "wall 6: the daemon reaches the browser", func(p string) bool {
				return under(p, module+"adapters/authority/browser", module+"adapters/servicemanager")
			})
		}
		if under(pkg, module+"adapters/lowlatency") {
			rule(pkg, "wall 1: lowlatency reaches the module or a library that keeps secrets", func(p string) bool {
				return strings.HasPrefix(p, module) || under(p, secretLibraries...)
			})
		}
		if under(pkg, module+"adapters") {
			rule(pkg, "wall 3: an adapter imports an actor", func(p string) bool {
				return under(p, module+"actors", module+"supervisor", module+"cmd")
			})
		}
		if wing := adapterWing(pkg); wing != "" {
			rule(pkg, "wall 3: an adapter reaches another wing's adapter", func(p string) bool {
				other := adapterWing(p)
				return other != "" && other != wing
			})
		}
		if under(pkg, module+"actors") {
			rule(pkg, "wall 3: an actor reaches another wing's actor", func(p string) bool {
				return under(p, module+"actors") && !under(p, sharedByActors...) && p != pkg && wingOf(p) != wingOf(pkg) ||
					under(p, module+"supervisor", module+"cmd")
			})
		}
	}
	return found
}

// adapterWing names the wing of an adapter: authority, door or runtime. Adapters directly under adapters/
// belong to no wing and may be imported by all.
func adapterWing(pkg string) string {
	for _, wing := range []string{"authority", "door", "runtime"} {
		if under(pkg, module+"adapters/"+wing) {
			return wing
		}
	}
	return ""
}

// sharedByActors lists the packages that every actor may import; they import no actor.
var sharedByActors = []string{module + "actors/actorkit"}

// wingOf names the folder below actors/ that pkg lives in.
func wingOf(pkg string) string {
	wing, _, _ := strings.Cut(strings.TrimPrefix(pkg, module+"actors/"), "/")
	return wing
}

// pureRooms are packages that do no I/O, read no clock and log nothing (wall 4).
var pureRooms = []string{
	module + "fsm", module + "messages", module + "adapters/door/guard", module + "adapters/completion/lane",
}

// pureImports are the only packages that a pure package may import, apart from other pure packages. A package
// that is not on the list counts as I/O. For packages that contain both pure functions and I/O, Deeds checks
// each use.
var pureImports = []string{
	"context", "crypto/sha256", "crypto/subtle", "encoding/binary", "errors", "fmt", "math", "net/netip", "slices", "strings", "time",
	"github.com/looplab/fsm",
}

// words are the pure names of packages that can also read the clock or write.
var words = map[string][]string{
	"context":         {"Background", "Context"},
	"encoding/binary": {"NativeEndian"},
	"fmt":             {"Errorf", "State"},
	"time":            {"Duration", "Hour", "Millisecond", "Minute", "Second", "Time"},
}

// Purity finds imports of pure packages that are not on the list.
func Purity(g Graph) []string {
	var found []string
	for _, pkg := range sorted(g) {
		if !under(pkg, pureRooms...) {
			continue
		}
		for _, imported := range g[pkg] {
			if !slices.Contains(pureImports, imported) && !under(imported, pureRooms...) {
				found = append(found, fmt.Sprintf("wall 4: %s imports %s", pkg, imported))
			}
		}
	}
	return found
}

// Deeds finds uses of the clock, of output and of timers in a pure package.
func Deeds(pkg *packages.Package) []string {
	if !under(pkg.PkgPath, pureRooms...) {
		return nil
	}
	return uses(pkg, "wall 4", func(from, name string) bool {
		allowed, mixed := words[from]
		return mixed && !strings.Contains(name, ".") && !slices.Contains(allowed, name)
	})
}

// starts and listens are the functions that start a program or listen, by package; methods have their type's
// name before them.
var (
	starts = map[string][]string{
		"os/exec": {"Command", "CommandContext", "Cmd", "Cmd.Start", "Cmd.Run", "Cmd.Output", "Cmd.CombinedOutput"},
	}
	becomes = map[string][]string{
		"os":                       {"StartProcess"},
		"syscall":                  {"ForkExec", "StartProcess", "Exec", "CreateProcess", "CreateProcessAsUser"},
		"golang.org/x/sys/unix":    {"Exec"},
		"golang.org/x/sys/windows": {"CreateProcess", "CreateProcessAsUser", "ShellExecute"},
	}
	listens = map[string][]string{
		"net": {"Listen", "ListenTCP", "ListenUnix", "ListenUnixgram", "ListenPacket", "ListenUDP", "ListenMulticastUDP", "ListenIP",
			"ListenConfig", "ListenConfig.Listen", "ListenConfig.ListenPacket", "FileListener", "FilePacketConn"},
		"net/http":                 {"ListenAndServe", "ListenAndServeTLS", "Server.ListenAndServe", "Server.ListenAndServeTLS"},
		"crypto/tls":               {"Listen"},
		"syscall":                  {"Listen"},
		"golang.org/x/sys/unix":    {"Listen"},
		"golang.org/x/sys/windows": {"Listen"},
	}
	binds = map[string][]string{
		"syscall":                  {"Bind"},
		"golang.org/x/sys/unix":    {"Bind"},
		"golang.org/x/sys/windows": {"Bind"},
	}
)

// Hands finds violations of wall 6: only a few packages may start programs or listen. adapters/runtime/spawn starts the
// runtime, adapters/authority/browser the user's browser, for the command line alone (see Wings),
// adapters/servicemanager the service manager, for the command line alone too. `companion exec` runs
// what the user names, so cmd/companion may become another program, or start it where the system has no exec.
// adapters/runtime/spawn binds a port on Windows to choose it for the runtime (R3), and does not listen. SkipsVerification
// looks for the text InsecureSkipVerify.
func Hands(pkg *packages.Package) []string {
	starter := under(pkg.PkgPath, module+"adapters/runtime/spawn", module+"adapters/authority/browser",
		module+"adapters/servicemanager", module+"e2e")
	listener := under(pkg.PkgPath, module+"adapters/door/loopback", module+"adapters/door/controlsock",
		module+"adapters/authority/oauth", module+"cmd/devhub", module+"e2e")
	return uses(pkg, "wall 6", func(from, name string) bool {
		return !starter && slices.Contains(starts[from], name) ||
			!starter && pkg.PkgPath != module+"cmd/companion" && slices.Contains(becomes[from], name) ||
			!listener && slices.Contains(listens[from], name) ||
			!listener && !under(pkg.PkgPath, module+"adapters/runtime/spawn") && slices.Contains(binds[from], name)
	})
}

// uses finds uses of the objects and methods of other packages for which bad holds, however the import
// is named.
func uses(pkg *packages.Package, wall string, bad func(from, name string) bool) []string {
	var found []string
	for ident, used := range pkg.TypesInfo.Uses {
		if used.Pkg() == nil || used.Pkg() == pkg.Types {
			continue
		}
		name := used.Name()
		if f, ok := used.(*types.Func); ok && f.Signature().Recv() != nil {
			name = typeName(f.Signature().Recv().Type()) + "." + name
		} else if used.Parent() != used.Pkg().Scope() {
			continue // a field
		}
		if bad(used.Pkg().Path(), name) {
			found = append(found, fmt.Sprintf("%s: %s uses %s.%s", wall, pkg.Fset.Position(ident.Pos()), used.Pkg().Path(), name))
		}
	}
	sort.Strings(found)
	return found
}

// typeName is the name of a named type or of what it points to.
func typeName(t types.Type) string {
	if pointer, ok := t.(*types.Pointer); ok {
		t = pointer.Elem()
	}
	if named, ok := t.(*types.Named); ok {
		return named.Obj().Name()
	}
	return ""
}

// Unread finds fields of the settings that no other package reads: a key that is accepted and does nothing
// (X5).
func Unread(pkgs []*packages.Package) []string {
	const room = module + "adapters/config"
	read := map[string]bool{}
	unread := []string{}
	for _, pkg := range pkgs {
		for _, s := range pkg.TypesInfo.Selections {
			if pkg.PkgPath != room && s.Kind() == types.FieldVal && s.Obj().Pkg() != nil && s.Obj().Pkg().Path() == room {
				read[typeName(s.Recv())+"."+s.Obj().Name()] = true
			}
		}
	}
	var visit func(t types.Type)
	visit = func(t types.Type) {
		for field := range t.Underlying().(*types.Struct).Fields() {
			if name := typeName(t) + "." + field.Name(); !read[name] {
				unread = append(unread, "no package reads settings."+name)
			}
			if _, ok := field.Type().Underlying().(*types.Struct); ok {
				visit(field.Type())
			}
		}
	}
	for _, pkg := range pkgs {
		if pkg.PkgPath == room {
			visit(pkg.Types.Scope().Lookup("Settings").Type())
		}
	}
	sort.Strings(unread)
	return slices.Compact(unread)
}

// SkipsVerification finds the identifier that turns certificate checks off.
func SkipsVerification(pkg *packages.Package) []string {
	var found []string
	for _, file := range pkg.Syntax {
		ast.Inspect(file, func(n ast.Node) bool {
			if name, ok := n.(*ast.Ident); ok && name.Name == "Insecure"+"SkipVerify" {
				found = append(found, fmt.Sprintf("wall 6: %s turns certificate checks off", pkg.Fset.Position(name.Pos())))
			}
			return true
		})
	}
	return found
}

// RuntimeMessages finds types of package messages that a package of the runtime wing mentions and that could
// carry a secret or a handle (wall 5, C1): a Secret, an interface, a function, a pointer, or a channel other
// than the field named Reply. The marker interfaces of the mailboxes are the type of the channel, not of a
// message.
func RuntimeMessages(pkg *packages.Package, markers []string) []string {
	if !inWing(pkg.PkgPath, "runtime") {
		return nil
	}
	var found []string
	for name, used := range pkg.TypesInfo.Uses {
		typeName, ok := used.(*types.TypeName)
		if !ok || used.Pkg() == nil || used.Pkg().Path() != module+"messages" || slices.Contains(markers, used.Name()) {
			continue
		}
		if why := carries(typeName.Type(), map[types.Type]bool{}); why != "" {
			found = append(found, fmt.Sprintf("wall 5: %s mentions messages.%s, which carries %s",
				pkg.Fset.Position(name.Pos()), used.Name(), why))
		}
	}
	sort.Strings(found)
	return found
}

// carries names the part of t that could hold a secret or a handle; empty if there is none.
func carries(t types.Type, seen map[types.Type]bool) string {
	if seen[t] {
		return ""
	}
	seen[t] = true
	if named, ok := t.(*types.Named); ok {
		object := named.Obj()
		if object.Name() == "Secret" && object.Pkg() != nil && object.Pkg().Path() == module+"messages" {
			return "a Secret"
		}
		if object.Pkg() != nil && object.Pkg().Path() == "time" {
			return ""
		}
	}
	switch u := t.Underlying().(type) {
	case *types.Interface:
		return "an interface"
	case *types.Signature:
		return "a function"
	case *types.Chan:
		return "a channel"
	case *types.Pointer:
		return carries(u.Elem(), seen)
	case *types.Slice:
		return carries(u.Elem(), seen)
	case *types.Array:
		return carries(u.Elem(), seen)
	case *types.Map:
		if why := carries(u.Key(), seen); why != "" {
			return why
		}
		return carries(u.Elem(), seen)
	case *types.Struct:
		for field := range u.Fields() {
			t := field.Type()
			if reply, ok := t.Underlying().(*types.Chan); ok && field.Name() == "Reply" {
				t = reply.Elem()
			}
			if why := carries(t, seen); why != "" {
				return why + " in " + field.Name()
			}
		}
	}
	return ""
}

func sorted(g Graph) []string {
	var pkgs []string
	for pkg := range g {
		pkgs = append(pkgs, pkg)
	}
	sort.Strings(pkgs)
	return pkgs
}
