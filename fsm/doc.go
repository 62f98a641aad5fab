// Package fsm contains the lifecycle state machine (A1) and the other pure decisions: availability (A5),
// restart and crash-loop policy (A8), admission and queueing (L6), resource limits (P3) and the gate for each
// request (A6). Nothing here does I/O, reads a clock or logs (wall 4): time is an argument, and the result is
// a decision with a reason.
package fsm
