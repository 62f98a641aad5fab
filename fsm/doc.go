// Package fsm holds the pure decisions of the companion: the lifecycle table (A1), availability
// (A5), the restart policy (A8), admission (L6), resource limits (P3) and the per-request gate
// (A6). Nothing here does I/O, reads a clock or logs (wall 4): time comes in as a value, and what
// goes out is a decision with a reason.
package fsm
