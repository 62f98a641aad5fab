// Package walls holds the rules of the house as functions over a package graph, syntax and types;
// its tests apply them to the program and fail the build (C2). Each rule is also shown a planted
// violation that it must find.
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

// secretLibraries are what only the authority wing may link: keychain and OAuth (C2).
var secretLibraries = []string{
	"github.com/zalando/go-keyring", "golang.org/x/oauth2", "github.com/ory/fosite", "github.com/theupdateframework/go-tuf",
}

// Wings finds imports that cross walls 1, 2 and 3: the runtime wing reaches neither authority nor
// door nor a library that keeps secrets; the door wing never reaches authority; adapters import no
// actor; actors of different wings import each other never.
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
		if under(pkg, module+"adapters") {
			rule(pkg, "wall 3: an adapter imports an actor", func(p string) bool {
				return under(p, module+"actors", module+"supervisor", module+"cmd")
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

// sharedByActors are how every actor speaks and works; they know no actor.
var sharedByActors = []string{module + "actors/mailbox", module + "actors/beside"}

// wingOf names the folder below actors/ that pkg lives in.
func wingOf(pkg string) string {
	wing, _, _ := strings.Cut(strings.TrimPrefix(pkg, module+"actors/"), "/")
	return wing
}

// pureRooms import nothing that does I/O, reads a clock or logs (wall 4).
var pureRooms = []string{
	module + "fsm", module + "messages", module + "adapters/door/guard", module + "adapters/completion/lane",
}

// impurePackages may not be imported directly by a pure room. Package time is a vocabulary of
// durations there; that its clock is not read is checked by Clock.
var impurePackages = []string{
	"os", "net", "syscall", "log", "io/fs", "path/filepath", "crypto/rand", "math/rand", "go.uber.org/zap",
	"golang.org/x/sys", "runtime/debug", "testing",
}

// Purity finds pure rooms that import an impure package or a room of the house that is not pure.
func Purity(g Graph) []string {
	var found []string
	for _, pkg := range sorted(g) {
		if !under(pkg, pureRooms...) {
			continue
		}
		for _, imported := range g[pkg] {
			if under(imported, impurePackages...) || strings.HasPrefix(imported, module) && !under(imported, pureRooms...) {
				found = append(found, fmt.Sprintf("wall 4: %s imports %s", pkg, imported))
			}
		}
	}
	return found
}

// clockReaders are the functions of package time that look at or wait for the clock.
var clockReaders = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// Clock finds uses of the clock in a pure room.
func Clock(pkg *packages.Package) []string {
	if !under(pkg.PkgPath, pureRooms...) {
		return nil
	}
	return calls(pkg, "wall 4", map[string][]string{"time": clockReaders})
}

// Hands finds what wall 6 leaves to a few rooms: starting programs and listening. The text
// InsecureSkipVerify is for SkipsVerification.
func Hands(pkg *packages.Package) []string {
	path := pkg.PkgPath
	forbidden := map[string][]string{}
	if !under(path, module+"adapters/runtime/spawn", module+"adapters/authority/browser", module+"e2e") {
		forbidden["os/exec"] = []string{"Command", "CommandContext"}
	}
	if !under(path, module+"adapters/door/loopback", module+"adapters/door/controlsock",
		module+"adapters/authority/oauth", module+"cmd/devhub", module+"e2e") {
		forbidden["net"] = []string{"Listen", "ListenTCP", "ListenUnix", "ListenPacket", "ListenUDP", "ListenConfig", "FileListener"}
		forbidden["net/http"] = []string{"ListenAndServe", "ListenAndServeTLS"}
		forbidden["crypto/tls"] = []string{"Listen"}
	}
	return calls(pkg, "wall 6", forbidden)
}

// calls finds uses of the named objects of other packages, however the import is named.
func calls(pkg *packages.Package, wall string, forbidden map[string][]string) []string {
	var found []string
	for name, used := range pkg.TypesInfo.Uses {
		if used.Pkg() == nil || used.Parent() != used.Pkg().Scope() {
			continue
		}
		if slices.Contains(forbidden[used.Pkg().Path()], used.Name()) {
			found = append(found, fmt.Sprintf("%s: %s uses %s.%s", wall, pkg.Fset.Position(name.Pos()), used.Pkg().Path(), used.Name()))
		}
	}
	sort.Strings(found)
	return found
}

// SkipsVerification finds the text that turns certificate checks off, in any spelling that compiles.
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

// RuntimeMessages finds types of package messages that a package of the runtime wing mentions and
// that could carry a secret or a handle (wall 5, C1): a Secret, an interface, a function, a
// pointer, or a channel other than the field named Reply. The marker interfaces of the mailboxes
// are what is sent through, not what is sent.
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

// carries says what in t could hold a secret or a handle, or nothing.
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
