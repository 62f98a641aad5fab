package walls

import (
	"fmt"
	"go/ast"
	"go/types"
	"sort"

	"golang.org/x/tools/go/packages"
)

// ActorShape finds actors that differ from the common shape:
//
//   - Deps names the actor's logger Log and its mailbox Inbox. Process also has Output, the log of the runtime's lines.
//   - When its context ends, the loop (Serve, or run and loop, which Serve calls) returns ctx.Err(). The supervisor
//     reads every other value as a failure.
func ActorShape(pkg *packages.Package) []string {
	if !under(pkg.PkgPath, module+"actors") {
		return nil
	}
	var found []string
	report := func(n ast.Node, format string, args ...any) {
		found = append(found, fmt.Sprintf("%s: %s", pkg.Fset.Position(n.Pos()), fmt.Sprintf(format, args...)))
	}
	for _, file := range pkg.Syntax {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.TypeSpec:
				if fields, ok := n.Type.(*ast.StructType); ok && n.Name.Name == "Deps" {
					depsShape(pkg, n, fields, report)
				}
			case *ast.FuncDecl:
				if n.Recv != nil && n.Body != nil && (n.Name.Name == "Serve" || n.Name.Name == "run" || n.Name.Name == "loop") {
					endShape(n, report)
				}
			}
			return true
		})
	}
	sort.Strings(found)
	return found
}

func depsShape(pkg *packages.Package, spec *ast.TypeSpec, fields *ast.StructType, report func(ast.Node, string, ...any)) {
	inboxes, named := 0, false
	for _, field := range fields.Fields.List {
		for _, name := range field.Names {
			t := pkg.TypesInfo.TypeOf(field.Type)
			if typeName(t) == "Logger" && name.Name != "Log" && name.Name != "Output" {
				report(name, "the logger of an actor is called Log, got %s", name.Name)
			}
			if c, ok := t.Underlying().(*types.Chan); ok && c.Dir() == types.RecvOnly {
				inboxes++
				named = named || name.Name == "Inbox"
			}
		}
	}
	if inboxes > 0 && !named {
		report(spec, "the mailbox of an actor is called Inbox, got no field of this name")
	}
}

// endShape checks what the loop returns in the case that receives from Done, and that Serve returns no nil.
func endShape(f *ast.FuncDecl, report func(ast.Node, string, ...any)) {
	ast.Inspect(f.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false // its returns are its own
		case *ast.CommClause:
			if receivesFrom(n.Comm, "Done") && len(n.Body) > 0 {
				if r, ok := n.Body[len(n.Body)-1].(*ast.ReturnStmt); ok && !returnsCall(r, "Err") {
					report(r, "at the end of its context %s returns ctx.Err()", f.Name.Name)
				}
			}
		case *ast.ReturnStmt:
			if len(n.Results) == 1 && f.Name.Name == "Serve" {
				if name, ok := n.Results[0].(*ast.Ident); ok && name.Name == "nil" {
					report(n, "Serve returns nil, which the supervisor takes for a failure")
				}
			}
		}
		return true
	})
}

// receivesFrom reports whether a case receives from a call of the method.
func receivesFrom(s ast.Stmt, method string) bool {
	e, ok := s.(*ast.ExprStmt)
	if !ok {
		return false
	}
	u, ok := e.X.(*ast.UnaryExpr)
	return ok && isCall(u.X, method)
}

func returnsCall(r *ast.ReturnStmt, method string) bool {
	return len(r.Results) == 1 && isCall(r.Results[0], method)
}

func isCall(e ast.Expr, method string) bool {
	call, ok := e.(*ast.CallExpr)
	if !ok {
		return false
	}
	selector, ok := call.Fun.(*ast.SelectorExpr)
	return ok && selector.Sel.Name == method
}
