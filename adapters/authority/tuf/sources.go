package tuf

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"github.com/go-json-experiment/json"

	"companion/adapters/privatefs"
	"companion/messages"
)

// Hub is the part of Client that Sources needs.
type Hub interface {
	Refresh(ctx context.Context, access messages.Secret) (Catalogue, error)
	Load() (Catalogue, error)
	LastGood() (Pair, error)
	Remember(model, runtime [32]byte) error
}

// Sources are both places of signed artifacts: the hub's manifest and the user's own catalogue. A last known good pair may
// have a part of each.
type Sources struct {
	Hub
	Own *Own
}

// LoadOwn returns the user's own catalogue.
func (s Sources) LoadOwn() (Catalogue, error) { return s.Own.Load() }

// ownGoodFile records the last known good pair, if a part of it is in the user's own catalogue. It holds digests, not
// metadata: the catalogue itself is always here, and a part that it no longer names must not be used.
const ownGoodFile = "lastgood.json"

type ownGood struct {
	Model   string `json:"model"`             // lower-case hex of the SHA-256
	Runtime string `json:"runtime,omitempty"` // empty: the unpinned binary
}

// Remember records the pair with these digests as last known good.
func (s Sources) Remember(model, runtime [32]byte) error {
	own, err := s.Own.Load()
	if err != nil {
		own = Catalogue{} // its artifacts are not used either
	}
	if !own.Has(model) && !own.Has(runtime) {
		if err := s.Hub.Remember(model, runtime); err != nil {
			return err
		}
		if err := os.Remove(s.Own.path(ownGoodFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("forgetting the earlier last known good pair: %w", err)
		}
		return nil
	}
	g := ownGood{Model: hex.EncodeToString(model[:])}
	if runtime != [32]byte{} {
		g.Runtime = hex.EncodeToString(runtime[:])
	}
	data, err := json.Marshal(g)
	if err == nil {
		err = privatefs.WriteFile(s.Own.path(ownGoodFile), data)
	}
	if err != nil {
		return fmt.Errorf("recording the last known good pair: %w", err)
	}
	return nil
}

// LastGood returns the recorded pair. Each part must still be in the user's own catalogue or in the hub's stored manifest.
func (s Sources) LastGood() (Pair, error) {
	data, err := s.Own.read(ownGoodFile)
	if err != nil {
		return s.Hub.LastGood()
	}
	var g ownGood
	if err := json.Unmarshal(data, &g, json.RejectUnknownMembers(true)); err != nil {
		return Pair{}, fmt.Errorf("reading the last known good pair: %w", err)
	}
	own, err := s.Own.Load()
	if err != nil {
		return Pair{}, err
	}
	hub, hubErr := s.Hub.Load()
	pair := Pair{}
	part := func(digest string) messages.Artifact {
		for _, e := range own.entries {
			if hex.EncodeToString(e.artifact.SHA256[:]) == digest {
				return e.artifact
			}
		}
		for _, e := range hub.entries {
			if hubErr == nil && hex.EncodeToString(e.artifact.SHA256[:]) == digest {
				pair.Expires = hub.Expires
				return e.artifact
			}
		}
		return messages.Artifact{}
	}
	pair.Model = part(g.Model)
	if g.Runtime != "" {
		pair.Runtime = part(g.Runtime)
	}
	if pair.Model.Kind != messages.KindModel || g.Runtime != "" && pair.Runtime.Kind != messages.KindRuntime {
		return Pair{}, os.ErrNotExist
	}
	return pair, nil
}

// Has reports whether the catalogue offers an artifact with that digest.
func (c Catalogue) Has(digest [32]byte) bool {
	for _, e := range c.entries {
		if e.artifact.SHA256 == digest {
			return true
		}
	}
	return false
}
