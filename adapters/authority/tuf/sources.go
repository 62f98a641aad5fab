package tuf

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"

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
	Evidence(digest [32]byte) ([]byte, error)
	Verify(evidence []byte, digest [32]byte) (messages.Artifact, time.Time, error)
}

// Sources are both places of signed artifacts: the hub's manifest and the user's own catalogue. A last known good pair may
// have a part of each.
type Sources struct {
	Hub
	Own *Own
}

// LoadOwn returns the user's own catalogue.
func (s Sources) LoadOwn() (Catalogue, error) { return s.Own.Load() }

// ownGoodFile records the last known good pair, if a part of it is in the user's own catalogue. For such a part it holds the
// digest, not metadata: the catalogue itself is always here, and a part that it no longer names must not be used.
const ownGoodFile = "lastgood.json"

type ownGood struct {
	Model   string `json:"model"`             // lower-case hex of the SHA-256
	Runtime string `json:"runtime,omitempty"` // empty: the unpinned binary
	// Hub is the evidence of the part that is the hub's. It is here and not in the hub's folder, so that no crash can
	// separate the two, and so that a newer manifest does not remove the part (M13).
	Hub []byte `json:"hub,omitempty"`
}

func (g ownGood) names(model, runtime [32]byte) bool {
	return g.Model == hex.EncodeToString(model[:]) && g.Runtime == runtimeText(runtime)
}

// runtimeText is empty for the unpinned binary.
func runtimeText(digest [32]byte) string {
	if digest == [32]byte{} {
		return ""
	}
	return hex.EncodeToString(digest[:])
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
	g := ownGood{Model: hex.EncodeToString(model[:]), Runtime: runtimeText(runtime)}
	for _, part := range [][32]byte{model, runtime} {
		if part == [32]byte{} || own.Has(part) {
			continue
		}
		if g.Hub, err = s.Hub.Evidence(part); err != nil {
			if old, err := s.recorded(); err == nil && old.names(model, runtime) && old.Hub != nil {
				return nil // the pair became ready again, after the manifest moved on
			}
			return err
		}
	}
	privatefs.RemoveUnfinished(s.Own.config.Dir, ownGoodFile) // only the daemon writes it
	data, err := json.Marshal(g)
	if err == nil {
		err = privatefs.WriteFile(s.Own.path(ownGoodFile), data)
	}
	if err != nil {
		return fmt.Errorf("recording the last known good pair: %w", err)
	}
	return nil
}

func (s Sources) recorded() (ownGood, error) {
	var g ownGood
	data, err := s.Own.read(ownGoodFile)
	if err != nil {
		return g, err
	}
	if err := json.Unmarshal(data, &g, json.RejectUnknownMembers(true)); err != nil {
		return ownGood{}, fmt.Errorf("reading the last known good pair: %w", err)
	}
	return g, nil
}

// LastGood returns the recorded pair. A part must be in the user's own catalogue, or in the hub's stored manifest, or be named
// by the recorded metadata of the hub. If the record cannot be used, the pair of the hub that became ready before counts.
func (s Sources) LastGood() (Pair, error) {
	pair, err := s.ownGood()
	if err == nil {
		return pair, nil
	}
	hub, hubErr := s.Hub.LastGood()
	if hubErr != nil {
		return Pair{}, errors.Join(err, hubErr)
	}
	return hub, nil
}

func (s Sources) ownGood() (Pair, error) {
	g, err := s.recorded()
	if err != nil {
		return Pair{}, err
	}
	own, err := s.Own.Load()
	if err != nil {
		return Pair{}, err
	}
	pair := Pair{}
	if pair.Model, err = s.part(own, g, g.Model, &pair.Expires); err == nil && g.Runtime != "" {
		pair.Runtime, err = s.part(own, g, g.Runtime, &pair.Expires)
	}
	if err != nil {
		return Pair{}, err
	}
	if pair.Model.Kind != messages.KindModel || g.Runtime != "" && pair.Runtime.Kind != messages.KindRuntime {
		return Pair{}, errors.New("the record of the last known good pair exchanges a model and a runtime")
	}
	return pair, nil
}

// part returns the artifact with that digest. If it is the hub's, part sets expires.
func (s Sources) part(own Catalogue, g ownGood, text string, expires *time.Time) (messages.Artifact, error) {
	data, err := hex.DecodeString(text)
	if err != nil || len(data) != 32 {
		return messages.Artifact{}, errors.New("the record of the last known good pair has a malformed digest")
	}
	digest := [32]byte(data)
	if a, ok := own.withDigest(digest); ok {
		return a, nil
	}
	if hub, err := s.Hub.Load(); err == nil {
		if a, ok := hub.withDigest(digest); ok {
			*expires = hub.Expires
			return a, nil
		}
	}
	a, at, err := s.Hub.Verify(g.Hub, digest)
	*expires = at
	return a, err
}

// Has reports whether the catalogue offers an artifact with that digest.
func (c Catalogue) Has(digest [32]byte) bool {
	_, ok := c.withDigest(digest)
	return ok
}

func (c Catalogue) withDigest(digest [32]byte) (messages.Artifact, bool) {
	for _, e := range c.entries {
		if e.artifact.SHA256 == digest {
			return e.artifact, true
		}
	}
	return messages.Artifact{}, false
}
