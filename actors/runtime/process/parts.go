package process

import (
	"errors"
	"fmt"
	"os"

	"companion/adapters/gguf"
	"companion/adapters/runtime/spawn"
	"companion/messages"
)

// weights is the size of the files that are loaded, in bytes. draft: the draft model is.
func weights(m messages.VerifiedModel, draft bool) int64 {
	size := m.Identity.Size
	for _, p := range m.Parts {
		if draft || p.Role != messages.RoleDraft {
			size += p.Identity.Size
		}
	}
	return size
}

// draftKVBytes is what a token of context takes in the draft model; 0: there is none, or its header does not say.
func (a *Actor) draftKVBytes(m messages.VerifiedModel) int64 {
	for _, p := range m.Parts {
		if p.Role == messages.RoleDraft {
			if h, err := partHeader(m, p); err == nil {
				return h.KVBytes()
			}
		}
	}
	return 0
}

func partHeader(m messages.VerifiedModel, p messages.VerifiedPart) (gguf.Header, error) {
	file, err := spawn.OpenPart(m, p)
	if err != nil {
		return gguf.Header{}, err
	}
	defer func(f *os.File) { _ = f.Close() }(file)
	return gguf.Read(file)
}

// checkParts returns malformed_spec if the headers of the files contradict what the manifest says they are (M17). The bytes are
// the signed ones, so the fault is the publisher's: a part that is missing, twice, or in another one's place. The runtime would
// refuse such a model too, and say less.
func (a *Actor) checkParts(m messages.VerifiedModel) error {
	refuse := func(format string, values ...any) error {
		return &spawn.Error{Reason: messages.ReasonMalformedSpec, Doing: "reading the model", Artifact: m.Name, Err: fmt.Errorf(format, values...)}
	}
	parts := 1
	for _, p := range m.Parts {
		if p.Role == messages.RoleWeights {
			parts++
		}
	}
	part := 1
	check := func(name string, h gguf.Header) error {
		no, of := h.Part()
		switch {
		case no == 0 && parts == 1:
			return nil
		case of == 0:
			return refuse("%s is a whole model, want part %d of %d", name, part, parts)
		case no != part || of != parts:
			return refuse("%s is part %d of %d, want part %d of %d", name, no, of, part, parts)
		}
		return nil
	}
	// The header of a single file that cannot be read says nothing, as everywhere.
	if h := a.header(m); parts > 1 || h.Architecture() != "" {
		if err := check(m.Name, h); err != nil {
			return err
		}
	}
	for _, p := range m.Parts {
		h, err := partHeader(m, p)
		if err != nil {
			var changed *spawn.Error
			if errors.As(err, &changed) {
				return err
			}
			return refuse("%s cannot be read: %w", p.Name, err)
		}
		switch p.Role {
		case messages.RoleWeights:
			part++
			err = check(p.Name, h)
		case messages.RoleProjector:
			if h.Architecture() != projector {
				err = refuse("%s is not a projector: its architecture is %q, want %q", p.Name, h.Architecture(), projector)
			}
		case messages.RoleDraft:
			if _, of := h.Part(); of > 0 || h.Architecture() == projector {
				err = refuse("%s is not a whole model, so that it cannot be the draft model", p.Name)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// projector is the architecture of a projector.
const projector = "clip"
