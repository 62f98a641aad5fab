// Package messages defines the message types that the actors exchange, the reason codes (Reason), the status
// document and the Secret type. It imports nothing that does I/O, reads a clock or logs (wall 4).
//
// Each receiving actor accepts a closed set of messages: an interface with an unexported marker method, so
// that one type switch handles all of them. A message that expects a reply carries a channel of capacity one,
// made by the sender, so that the receiver never blocks on the reply.
//
// Messages that the runtime wing sends or receives (runtime.go) contain plain values only: no Secret,
// interface, function or channel other than their reply (wall 5, contract C1).
package messages
