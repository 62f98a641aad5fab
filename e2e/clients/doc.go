// Package clients drives real client libraries and programs against the real daemon and runtime, in their ordinary way:
// through `companion exec`, and with an application token in the environment. `task test-clients` installs them at
// pinned versions first. They take minutes to install, so the task is not part of `task test`.
package clients
