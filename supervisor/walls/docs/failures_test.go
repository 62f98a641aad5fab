package docs

import (
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	// labels are the values in front of a failure text, such as the name of the case.
	labels = regexp.MustCompile(`^(\S*%[-+#.0-9]*[a-zA-Z]\S* ?)+: `)
	verb   = regexp.MustCompile(`%[-+#.0-9\[\]]*[a-zA-Z]`)
	wanted = regexp.MustCompile(`(?i)\bwant(s|ed)?\b`)
)

// A failure that prints a value says what was wanted, except an unexpected error: `if err != nil { t.Fatalf("…: %v") }`.
func TestFailuresSayWant(t *testing.T) {
	failures := load(t).failures
	if len(failures) < 1000 {
		t.Fatalf("found %d failure texts, want at least 1000", len(failures))
	}
	for _, l := range failures {
		if strings.HasPrefix(path.Dir(l.file), "supervisor/walls") {
			continue // these say which file breaks which rule
		}
		if verb.MatchString(labels.ReplaceAllString(l.text, "")) && !wanted.MatchString(l.text) {
			t.Errorf("%s:%d fails with %q; say got …, want …", l.file, l.number, l.text)
		}
	}
}

// failuresOf lists the texts of all Errorf and Fatalf calls that are not made only because of an unexpected error.
func failuresOf(set *token.FileSet, parsed *ast.File, file string) []line {
	var lines []line
	unexpected := map[ast.Node]bool{} // the bodies of `if err != nil`
	ast.Inspect(parsed, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.IfStmt:
			unexpected[n.Body] = isUnexpected(n.Cond)
		case *ast.BlockStmt:
			return !unexpected[n]
		case *ast.CallExpr:
			if text, ok := failureText(n); ok {
				lines = append(lines, line{file, set.Position(n.Pos()).Line, text})
			}
		}
		return true
	})
	return lines
}

// isUnexpected reports whether a condition is only `err != nil`.
func isUnexpected(condition ast.Expr) bool {
	c, ok := condition.(*ast.BinaryExpr)
	if !ok || c.Op != token.NEQ {
		return false
	}
	value, isName := c.X.(*ast.Ident)
	null, isNil := c.Y.(*ast.Ident)
	return isName && isNil && null.Name == "nil" && strings.HasSuffix(strings.ToLower(value.Name), "err")
}

// failureText returns the format of a call of a test's Errorf or Fatalf.
func failureText(call *ast.CallExpr) (string, bool) {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || len(call.Args) < 2 || method.Sel.Name != "Errorf" && method.Sel.Name != "Fatalf" {
		return "", false
	}
	if receiver, ok := method.X.(*ast.Ident); ok && receiver.Name == "fmt" {
		return "", false
	}
	return literal(call.Args[0])
}

// literal returns the text of a string constant, also of a concatenated one.
func literal(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil
	case *ast.BinaryExpr:
		left, leftOK := literal(e.X)
		right, rightOK := literal(e.Y)
		return left + right, leftOK || rightOK
	}
	return "", false
}
