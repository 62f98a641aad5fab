package tuf

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"companion/adapters/privatefs"
	"companion/messages"
)

// lastGoodFile records the pair of model and runtime that last became ready, with the signed metadata that
// names it (M13). It is a separate file, so that neither a newer manifest nor the loss of the stored one changes it.
const lastGoodFile = "lastgood.json"

// recordedPair is the content of lastGoodFile.
type recordedPair struct {
	Roots   [][]byte `json:"roots"` // after the pinned one, up to the root that the targets were verified with
	Targets []byte   `json:"targets"`
	Model   string   `json:"model"`             // lower-case hex of the SHA-256
	Runtime string   `json:"runtime,omitempty"` // empty: the unpinned binary
}

// Pair is a model and a runtime that a signed manifest names. Runtime has no kind if it was the unpinned
// binary.
type Pair struct {
	Model, Runtime messages.Artifact
	Expires        time.Time // of the targets metadata that names them; zero: never, for the user's own
}

// recent bounds the manifests that Remember searches: a newer manifest may arrive before a pair becomes ready.
const recent = 4

// Remember records the pair with these digests as last known good. A zero runtime digest means the unpinned
// binary. The pair must be in a manifest that was loaded or refreshed recently, or be recorded already.
func (c *Client) Remember(model, runtime [32]byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, err := c.lastGood(); err == nil && old.Model.SHA256 == model && old.Runtime.SHA256 == runtime {
		return nil
	}
	for i := len(c.recent) - 1; i >= 0; i-- {
		k := c.recent[i]
		r := recordedPair{Roots: k.Roots, Targets: k.Targets, Model: hex.EncodeToString(model[:])}
		if runtime != [32]byte{} {
			r.Runtime = hex.EncodeToString(runtime[:])
		}
		if _, err := c.verifyPair(r); err != nil {
			continue
		}
		data, err := json.Marshal(r)
		if err == nil {
			err = privatefs.WriteFile(filepath.Join(c.store.dir, lastGoodFile), data)
		}
		if err != nil {
			return fmt.Errorf("recording the last known good pair: %w", err)
		}
		return nil
	}
	return errors.New("no recent manifest names the pair that became ready")
}

// LastGood returns the recorded pair. It verifies the record again from the pinned root and ignores its expiry. A record
// that does not verify is renamed.
func (c *Client) LastGood() (Pair, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lastGood()
}

func (c *Client) lastGood() (Pair, error) {
	r, err := read[recordedPair](c.store, lastGoodFile)
	if err != nil {
		return Pair{}, err
	}
	if r.Targets == nil {
		return Pair{}, os.ErrNotExist
	}
	pair, err := c.verifyPair(r)
	if err != nil {
		return Pair{}, errors.Join(err, c.store.quarantine(lastGoodFile))
	}
	return pair, nil
}

// verifyPair verifies the signatures of r and finds the pair among its targets.
func (c *Client) verifyPair(r recordedPair) (pair Pair, err error) {
	err = contain(func() error {
		set, err := c.verifyTargets(r.Roots, r.Targets)
		if err != nil {
			return err
		}
		pair.Expires = set.Targets[metadata.TARGETS].Signed.Expires
		return c.findPair(set, r, &pair)
	})
	return pair, err
}

// verifyTargets verifies targets metadata with the last of the roots, which follow the pinned one. Expiry is not checked.
func (c *Client) verifyTargets(roots [][]byte, data []byte) (*trustedmetadata.TrustedMetadata, error) {
	set, err := trustedmetadata.New(c.config.Root)
	if err != nil {
		return nil, err
	}
	set.RefTime = time.Time{}
	for _, root := range roots {
		if _, err := set.UpdateRoot(root); err != nil {
			return nil, err
		}
	}
	targets, err := metadata.Targets().FromBytes(data)
	if err != nil {
		return nil, err
	}
	if err := set.Root.VerifyDelegate(metadata.TARGETS, targets); err != nil {
		return nil, err
	}
	set.Targets[metadata.TARGETS] = targets
	return set, nil
}

// evidence is the signed metadata that names one artifact. It is kept where the rest of the pair is not the hub's.
type evidence struct {
	Roots   [][]byte `json:"roots"` // after the pinned one, up to the root that the targets were verified with
	Targets []byte   `json:"targets"`
}

// Evidence returns the signed metadata that names the artifact with that digest, for Verify. A manifest that was loaded or
// refreshed recently must name it.
func (c *Client) Evidence(digest [32]byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(c.recent) - 1; i >= 0; i-- {
		data, err := json.Marshal(evidence{c.recent[i].Roots, c.recent[i].Targets})
		if err != nil {
			return nil, fmt.Errorf("recording the signed metadata: %w", err)
		}
		if _, _, err := c.Verify(data, digest); err == nil {
			return data, nil
		}
	}
	return nil, errors.New("no recent manifest names the artifact")
}

// Verify verifies the result of Evidence again from the pinned root, and returns the artifact and the expiry of the metadata
// that names it, which it does not check.
func (c *Client) Verify(recorded []byte, digest [32]byte) (a messages.Artifact, expires time.Time, err error) {
	err = contain(func() error {
		var e evidence
		if err := json.Unmarshal(recorded, &e, json.RejectUnknownMembers(true)); err != nil {
			return err
		}
		set, err := c.verifyTargets(e.Roots, e.Targets)
		if err != nil {
			return err
		}
		for _, e := range c.reader().entries(set).entries {
			if e.artifact.SHA256 == digest {
				a, expires = e.artifact, set.Targets[metadata.TARGETS].Signed.Expires
				return nil
			}
		}
		return errors.New("the metadata does not name the artifact")
	})
	return a, expires, err
}

func (c *Client) findPair(set *trustedmetadata.TrustedMetadata, r recordedPair, pair *Pair) error {
	for _, e := range c.reader().entries(set).entries {
		switch digest := hex.EncodeToString(e.artifact.SHA256[:]); {
		case e.artifact.Kind == messages.KindModel && digest == r.Model:
			pair.Model = e.artifact
		case e.artifact.Kind == messages.KindRuntime && digest == r.Runtime:
			pair.Runtime = e.artifact
		}
	}
	if pair.Model.Kind == "" || r.Runtime != "" && pair.Runtime.Kind == "" {
		return errors.New("the metadata does not name the pair")
	}
	return nil
}

// note keeps a manifest for Remember.
func (c *Client) note(k kept) {
	c.recent = append(c.recent, k)
	if len(c.recent) > recent {
		c.recent = c.recent[1:]
	}
}
