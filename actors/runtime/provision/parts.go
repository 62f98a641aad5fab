package provision

import (
	"cmp"
	"context"
	"fmt"
	"sync"

	"companion/adapters/artifact"
	"companion/messages"
)

// ensureParts returns a model of several files (M17). They are handled one after the other, as single files are: verified on
// disk, continued, fetched. A file that is wrong or missing changes nothing about the others, and the model is here only when
// all are right.
func (w worker) ensureParts(ctx context.Context) (messages.VerifiedModel, error) {
	none := messages.VerifiedModel{}
	a := w.artifact
	if w.fetchable() {
		if err := w.Store.Room(a.Parts); err != nil {
			return none, err
		}
	}
	whole := messages.VerifiedModel{
		Name: a.Name, Version: a.Version, SHA256: a.SHA256, Embedding: a.Embedding, Own: a.Own, Settings: a.Settings,
	}
	var done int64
	var wrong error
	for i, p := range a.Parts {
		file := w
		file.artifact, file.before = p, done
		m, err := file.ensureFile(ctx)
		if err != nil {
			err = fmt.Errorf("file %d of %d, %s: %w", i+1, len(a.Parts), p.Name, err)
			if ctx.Err() != nil || !wrongBytes(reasonOf(err)) {
				return none, err
			}
			wrong = cmp.Or(wrong, err) // the others are looked at too, so that all that is wrong is replaced at once
			continue
		}
		done += p.Size
		if i == 0 {
			whole.Path, whole.Identity = m.Path, m.Identity
			continue
		}
		whole.Parts = append(whole.Parts, messages.VerifiedPart{Role: p.Role, Name: p.Name, Path: m.Path, Identity: m.Identity})
	}
	if wrong != nil {
		return none, wrong
	}
	return whole, nil
}

// fetchable reports whether missing files may be downloaded.
func (w worker) fetchable() bool {
	for _, p := range w.artifact.Parts {
		if w.options.mayFetch && len(p.URLs) > 0 {
			return true
		}
	}
	return false
}

// digestsOf returns the digests of the files of an artifact.
func digestsOf(a messages.Artifact) []digest {
	var all []digest
	for _, f := range artifact.Members(a) {
		all = append(all, f.SHA256)
	}
	return all
}

// after counts the bytes of a transfer, and those of the files of the same model before it.
type after struct {
	counter
	before int64
}

func (c after) Bytes() int64 { return c.before + c.counter.Bytes() }

// fileLocks let one job at a time use a file. The zero value is ready.
type fileLocks struct {
	mu   sync.Mutex
	held map[digest]chan struct{} // closed when the file is free
}

// lock waits until the file is free. The error is the cause of ctx's end.
func (l *fileLocks) lock(ctx context.Context, file digest) (unlock func(), err error) {
	for {
		l.mu.Lock()
		busy, held := l.held[file]
		if !held {
			free := make(chan struct{})
			if l.held == nil {
				l.held = map[digest]chan struct{}{}
			}
			l.held[file] = free
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.held, file)
				l.mu.Unlock()
				close(free)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
