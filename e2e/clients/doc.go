// Package clients drives real client libraries and programs against the real daemon and runtime, in their ordinary way:
// through `companion exec`, and with an application token in the environment. The tasks install them at pinned versions
// first. `task test-libraries` has those that are installed in seconds, and CI runs it; `task test-clients` has all, which
// takes minutes.
package clients
