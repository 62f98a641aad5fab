package actorkit

import (
	"errors"
	"strings"
	"testing"
)

// J4: a panic is described by its type, or by the text of the Go run time, never by its value.
func TestDescribePanic(t *testing.T) {
	recovered := func(f func()) (p any) {
		defer func() { p = recover() }()
		f()
		return nil
	}
	var none map[string]int
	for want, f := range map[string]func(){
		"a string":                     func() { panic("secret") },
		"a *errors.errorString":        func() { panic(errors.New("secret")) },
		"assignment to entry in nil":   func() { none["secret"] = 1 },
		"index out of range [5] with ": func() { _ = []string{"secret"}[len("12345")] },
	} {
		if got := DescribePanic(recovered(f)); !strings.Contains(got, want) || strings.Contains(got, "secret") {
			t.Errorf("got %q, want %q without the value", got, want)
		}
	}
}
