package provision

import (
	"time"

	"go.uber.org/zap"

	"companion/messages"
)

// prune removes unused files (M15). It runs in the loop, so that no job starts meanwhile; it only removes directory
// entries. The regular clean-up waits until a pair has become ready: before that it is not known what runs.
func (s *service) prune(m messages.Prune) {
	if m.Reply == nil && !s.ready {
		return
	}
	keep := map[digest]bool{}
	keepAll := func(digests ...digest) {
		for _, key := range digests {
			keep[key] = true
		}
	}
	keepAll(m.Keep...)
	for key := range s.offered {
		keepAll(key)
		keepAll(s.files[key]...)
	}
	for _, j := range s.jobs {
		keepAll(digestsOf(j.artifact)...)
	}
	if s.want != nil {
		for _, a := range []messages.Artifact{s.want.Model, s.want.Runtime, s.want.GoodModel, s.want.GoodRuntime} {
			keepAll(digestsOf(a)...)
		}
	}
	items, err := s.Store.Prune(keep, time.Now(), m.DryRun)
	result := messages.PruneResult{Items: items, Reason: reasonOf(err)}
	if err != nil {
		s.Log.Warn("not everything could be removed", zap.Error(err))
	}
	if !m.DryRun {
		for _, item := range items {
			s.Log.Info("removed what nothing uses", zap.String("kind", item.Kind), zap.Int64("bytes", item.Bytes), zap.Time("modified", item.Modified))
		}
	}
	if m.Reply != nil {
		m.Reply <- result
	}
}
