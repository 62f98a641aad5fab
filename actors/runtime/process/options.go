package process

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"go.uber.org/zap"

	"companion/actors/actorkit"
	"companion/adapters/privatefs"
	"companion/adapters/runtime/probe"
	"companion/adapters/runtime/spawn"
	"companion/messages"
)

// ask returns the optional features of the runtime, which lists them itself (R12). A pinned runtime is asked once; an
// unpinned one at each start, because its file may have changed. A failure leaves every feature out: what is wrong with
// the artifacts, the start that follows reports.
func (a *Actor) ask(ctx context.Context, l *launch, group *actorkit.Group) spawn.Features {
	of := l.spawn.Runtime
	if known, found := a.recall(of); found {
		return known
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group.Go(func() {
		select {
		case <-l.kill:
			cancel()
		case <-ctx.Done():
		}
	})
	features, err := spawn.Ask(ctx, a.spec(l.spawn))
	if err != nil {
		a.Log.Warn("runtime starts without optional features: it did not list its options",
			zap.String("reason", string(reasonOf(err))), zap.Error(err))
		return spawn.Features{}
	}
	a.Log.Info("runtime lists its options", zap.Bool("speculation", features.Speculation), zap.Bool("sleep", features.Sleep))
	a.remember(of, &features)
	return features
}

// rememberedRuntimes bounds the list of runtimes that were asked.
const rememberedRuntimes = 8

// entry names a pinned runtime in the list. The digest itself stays in memory.
func entry(of messages.VerifiedRuntime) string {
	// The number counts what is asked for: another one asks again.
	sum := sha256.Sum256(append([]byte("features 2 "), of.SHA256[:]...))
	return hex.EncodeToString(sum[:])
}

// recall returns what a pinned runtime listed before, in this daemon or an earlier one. A list that cannot be read
// counts as empty.
func (a *Actor) recall(of messages.VerifiedRuntime) (spawn.Features, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.features == nil {
		if data, err := privatefs.ReadRegular(a.OptionsPath); a.OptionsPath != "" && err == nil && json.Unmarshal(data, &a.features) != nil {
			a.features = nil
		}
		if a.features == nil { // no list, a broken one, or null
			a.features = map[string]spawn.Features{}
		}
	}
	known, found := a.features[entry(of)]
	return known, found && of.Pinned
}

// remember keeps what a pinned runtime listed, on disk too. Nil forgets it, so that the runtime is asked again.
func (a *Actor) remember(of messages.VerifiedRuntime, features *spawn.Features) {
	if !of.Pinned {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case features == nil:
		delete(a.features, entry(of))
	case len(a.features) >= rememberedRuntimes:
		a.features = map[string]spawn.Features{entry(of): *features}
	default:
		a.features[entry(of)] = *features
	}
	if a.OptionsPath == "" {
		return
	}
	data, err := json.Marshal(a.features)
	if err == nil {
		err = privatefs.WriteFile(a.OptionsPath, data)
	}
	if err != nil {
		a.Log.Warn("options of the runtime not written", zap.Error(err))
	}
}

func (a *Actor) threads() int {
	if a.Threads > 0 {
		return a.Threads
	}
	return probe.Cores()
}

// The automatic size of the prompt cache: a small share of the memory that is free, and of the limit of the runtime.
// Less than the least is not worth the copies.
const (
	cacheShare      = 16 // of the free memory
	cacheLimitShare = 8  // of the memory limit
	mostCache       = 512 << 20
	leastCache      = 16 << 20
)

// promptCache returns the size of the prompt cache in bytes (R13). Text that is embedded has no cache.
func (a *Actor) promptCache(m messages.VerifiedModel) int64 {
	if m.Embedding {
		return 0
	}
	return cacheSize(a.PromptCache, a.MemoryLimit, probe.FreeMemory())
}

// cacheSize bounds the wanted size, where a negative one is automatic, by the memory limit, where 0 is none.
func cacheSize(wanted, limit, free int64) int64 {
	size := wanted
	if wanted < 0 {
		size = min(free/cacheShare, mostCache)
	}
	if limit > 0 {
		size = min(size, limit/cacheLimitShare)
	}
	if wanted < 0 && size < leastCache {
		return 0
	}
	return size
}

// expected is the memory of the model's weights in all its files, the full context of every slot and the full prompt cache, in bytes, or 0
// if the model's header does not say what a token of context takes (R5). The runtime's libraries and buffers come on top.
func (a *Actor) expected(m messages.VerifiedModel, spec spawn.Spec) int64 {
	token := a.header(m).KVBytes()
	if token == 0 {
		return 0
	}
	contexts := int64(max(spec.MaxInFlight, 1))
	if spec.ShareContext {
		contexts = 1
	}
	all := weights(m, spec.UsesDraft()) + token*int64(spec.Context)*contexts + spec.PromptCache
	if spec.UsesDraft() { // it has the same context
		all += a.draftKVBytes(m) * int64(spec.Context) * contexts
	}
	return all
}
