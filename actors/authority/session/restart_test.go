package session

import (
	"maps"
	"testing"

	"companion/messages"
)

func (h *harness) setPlace(place int, token messages.Secret) messages.Reason {
	switch {
	case h.reason != messages.ReasonOK:
		return h.reason
	case h.full && !token.IsZero():
		return messages.ReasonKeychainFull
	}
	h.places[place] = token
	return messages.ReasonOK
}

// pending returns the refresh tokens of the pending revocations in the keychain.
func (h *harness) pending() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var tokens []string
	for _, token := range h.places {
		if !token.IsZero() {
			tokens = append(tokens, token.Reveal())
		}
	}
	return tokens
}

// again returns the next start of the daemon: the same hub, disk and keychain.
func (h *harness) again(t *testing.T) *harness {
	h.cut()
	h.stop()
	h.mu.Lock()
	next := &harness{hub: h.hub, notes: h.notes, kept: h.kept, places: h.places, reason: h.reason}
	h.mu.Unlock()
	next.assemble(t.Context())
	next.start(t)
	return next
}

// cutAfter simulates a kill of the process: after that many writes to disk and keychain, no write succeeds.
func (h *harness) cutAfter(writes int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.left = &writes
}

// wrote counts a write, and reports whether it passes.
func (h *harness) wrote() bool {
	if h.left == nil {
		return true
	}
	*h.left--
	return *h.left >= 0
}

func (h *harness) alive() map[string]bool {
	h.hub.mu.Lock()
	defer h.hub.mu.Unlock()
	return maps.Clone(h.hub.good)
}
