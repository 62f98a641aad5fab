// Command companion serves a local language model to the programs of one user on one machine. Each
// command is a small file that parses, calls and prints; what is decided is decided elsewhere.
package main

import (
	"os"

	"companion/adapters/runtime/spawn"
)

func main() {
	if spawn.IsStage() {
		spawn.StageMain()
	}
	os.Exit(Main())
}
