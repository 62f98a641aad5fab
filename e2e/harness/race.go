//go:build race

package harness

const raceBuilt = true
