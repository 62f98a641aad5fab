//go:build !race

package harness

// RaceBuilt reports that the daemon runs with the race detector, which multiplies its memory.
const RaceBuilt = false
