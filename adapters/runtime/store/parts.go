package store

import (
	"context"

	"companion/messages"
)

// heldParts reports what is on disk of a model of several files (M17). The model is here when all are. Until then, the bytes
// of the complete files count as parts of it.
func (s *Store) heldParts(ctx context.Context, a messages.Artifact) messages.HeldArtifact {
	h := messages.HeldArtifact{Name: a.Name, Version: a.Version, Here: true, Verified: true}
	for _, p := range a.Parts {
		part := s.Held(ctx, p)
		h.Here, h.Verified = h.Here && part.Here, h.Verified && part.Verified
		if h.PartialBytes += part.PartialBytes; part.Here {
			h.PartialBytes += p.Size
		}
	}
	if h.Here {
		h.PartialBytes = 0
	}
	return h
}

// Room returns over_budget or no_space, with the numbers, if the files of a model that are not on disk do not fit, so that none
// of them is fetched in vain. Files that several models have count once.
func (s *Store) Room(parts []messages.Artifact) error {
	seen := map[[32]byte]bool{}
	missing := messages.Artifact{Kind: messages.KindModel}
	for _, p := range parts {
		if seen[p.SHA256] || s.fileSize(s.kept(p)) == p.Size {
			continue
		}
		seen[p.SHA256] = true
		missing.Size += max(0, p.Size-s.fileSize(s.partial(p)))
	}
	if missing.Size == 0 {
		return nil
	}
	if err := s.reserve(missing); err != nil {
		return err
	}
	s.release(missing)
	return s.space(missing.Size)
}
