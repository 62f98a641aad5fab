package custody

import (
	"context"
	"errors"

	"github.com/go-json-experiment/json"

	"companion/adapters/authority/keychain"
	"companion/adapters/authority/sessionnote"
	"companion/messages"
)

// loadSession reads the stored session. A missing, incomplete, oversized or unparsable session is reported as not found
// (K5). A failing keychain is reported with its reason, and nothing is deleted because of it (K4, K7).
func loadSession(ctx context.Context, k Keychain) messages.LoadedSession {
	none := func(err error) messages.LoadedSession {
		reason := keychain.ReasonOf(err)
		if reason == messages.ReasonInvalidSecret {
			reason = messages.ReasonOK
		}
		return messages.LoadedSession{Reason: reason}
	}
	raw, found, err := k.Get(ctx, keychain.SessionMetadata)
	if err != nil || !found {
		return none(err)
	}
	var stored storedMeta
	var s messages.Session
	if err := json.Unmarshal([]byte(raw.Reveal()), &stored, json.RejectUnknownMembers(true)); err != nil {
		return none(nil)
	}
	// A late write of a keychain that hung can mix the parts of two sessions. The digests in the metadata detect that.
	whole := func() bool {
		return stored.Access == "" || stored.Access == sessionnote.Digest(s.AccessToken) && stored.RefreshIs == sessionnote.Digest(s.RefreshToken)
	}
	s.Meta = stored.Meta
	if s.AccessToken, found, err = k.Get(ctx, keychain.AccessToken); err != nil || !found {
		return none(err)
	}
	if s.RefreshToken, found, err = k.Get(ctx, keychain.RefreshToken); err != nil || found != stored.Refresh {
		return none(err)
	}
	if !whole() {
		return none(nil)
	}
	return messages.LoadedSession{Session: s, Found: true, Reason: messages.ReasonOK}
}

// storedMeta is the session-metadata item. Refresh says whether a refresh token belongs to it; Access and RefreshIs are the
// digests of the tokens, and empty in an item that an earlier version stored.
type storedMeta struct {
	Meta      messages.SessionMeta `json:"meta"`
	Refresh   bool                 `json:"refresh"`
	Access    string               `json:"access,omitempty"`
	RefreshIs string               `json:"refreshIs,omitempty"`
}

// storeSession replaces the session so that a crash at any point leaves a complete session or none: it deletes the
// metadata first and writes it last (K5). A failed store leaves no session.
func storeSession(ctx context.Context, k Keychain, s messages.Session) messages.Reason {
	raw, err := json.Marshal(storedMeta{
		s.Meta, !s.RefreshToken.IsZero(), sessionnote.Digest(s.AccessToken), sessionnote.Digest(s.RefreshToken),
	})
	if err != nil {
		return messages.ReasonInvalidSecret
	}
	if err := k.Delete(ctx, keychain.SessionMetadata); err != nil {
		return keychain.ReasonOf(err)
	}
	err = k.Set(ctx, keychain.AccessToken, s.AccessToken)
	if err == nil && s.RefreshToken.IsZero() {
		err = k.Delete(ctx, keychain.RefreshToken)
	} else if err == nil {
		err = k.Set(ctx, keychain.RefreshToken, s.RefreshToken)
	}
	if err == nil {
		err = k.Set(ctx, keychain.SessionMetadata, messages.NewSecret(string(raw)))
	}
	if err != nil {
		// Without metadata the tokens are useless; remove them, best effort.
		_ = k.Delete(ctx, keychain.RefreshToken)
		_ = k.Delete(ctx, keychain.AccessToken)
	}
	return keychain.ReasonOf(err)
}

// clearSession removes the metadata first, then the tokens, and returns the reason of the first failure.
func clearSession(ctx context.Context, k Keychain) messages.Reason {
	return keychain.ReasonOf(errors.Join(
		k.Delete(ctx, keychain.SessionMetadata),
		k.Delete(ctx, keychain.RefreshToken),
		k.Delete(ctx, keychain.AccessToken),
	))
}
