// Package messages holds what actors say to each other: plain typed values, the closed set of
// reasons, and the Secret type. It imports nothing that does I/O, reads a clock or logs (wall 4).
//
// Each receiving actor has a closed set of messages: an interface with an unexported marker
// method, so that one type switch handles every message and nothing foreign can arrive. A message
// that expects an answer carries its own reply channel of capacity one, made by the asker, so that
// the owner never waits for the asker.
//
// Messages that the runtime wing sends or receives (runtime.go) hold plain values only: no Secret,
// interface, function or channel other than their reply (wall 5, contract C1).
package messages
