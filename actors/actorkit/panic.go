package actorkit

import (
	"fmt"
	"runtime"
)

// DescribePanic returns a text for the log about a recovered value. It does not quote the value, which may be
// a secret or a part of a request: it names the type. Errors of the Go run time are quoted, because they name
// types, indexes and lengths only.
func DescribePanic(recovered any) string {
	if err, ok := recovered.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("a %T", recovered)
}
