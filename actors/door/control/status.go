package control

import (
	"os"
	"strings"
	"time"

	"companion/fsm"
	"companion/messages"
)

// viewer builds the status. It asks no actor, so status works even when an actor is stuck.
type viewer struct{ deps Deps }

func (v viewer) Status() messages.Status { return v.assemble(v.deps.Snapshot.Get()) }

func (v viewer) Next() (messages.Status, <-chan struct{}) {
	snapshot, changed := v.deps.Snapshot.Next()
	return v.assemble(snapshot), changed
}

func (v viewer) assemble(snapshot messages.Snapshot) messages.Status {
	facts := snapshot.Facts
	manifest := v.deps.Views.Manifest()
	available := snapshot.AvailableFor
	if snapshot.Available {
		available += time.Since(snapshot.Since)
	}
	healthRecent := fsm.HealthRecent(facts.LastHealth, time.Now(), v.deps.Recency)
	if snapshot.Available && !healthRecent {
		// The machine has slept, and the timers of the lifecycle actor stopped with it (A5).
		snapshot.Available, snapshot.Reason = false, messages.ReasonRuntimeUnavailable
	}
	return messages.Status{
		Version:            v.deps.Version,
		PID:                os.Getpid(),
		StartedAt:          v.deps.StartedAt.UTC(),
		CompanionAvailable: snapshot.Available,
		Lifecycle:          snapshot.State,
		Reason:             snapshot.Reason,
		Since:              snapshot.Since.UTC(),
		AvailableSeconds:   available.Seconds(),
		Facts: messages.StatusFacts{
			Verified: facts.Verified, Ready: facts.Ready, Bound: facts.Bound, Token: facts.Token,
			HealthRecent: healthRecent, LastHealth: moment(facts.LastHealth),
		},
		FrontDoor: frontDoor(snapshot, v.deps.Views.Door()),
		Model: messages.StatusModel{
			Name: snapshot.Model.Name, Version: snapshot.Model.Version,
			Verified: facts.Verified, Grace: manifest.Grace, Yours: snapshot.Model.Own,
			Context: snapshot.Model.Context, ContextShare: share(snapshot.Model), ContextTrained: snapshot.Model.Trained, ContextAsked: snapshot.Model.Asked, ContextBy: snapshot.Model.ContextBy,
			ControlTokens: strings.FieldsFunc(snapshot.Model.Control, func(r rune) bool { return r == '\n' }),
		},
		Runtime: runtimeOf(snapshot, v.deps.Views.Process(), v.deps.Views.Observation(), v.deps.Views.Door().InFlight),
		Session: session(v.deps.Views.Session()),
		Manifest: messages.StatusManifest{
			Version: manifest.Version, Expires: moment(manifest.Expires), CheckedAt: moment(manifest.CheckedAt), RetryAt: moment(manifest.RetryAt),
			Reason: unlessOK(manifest.Reason), Added: manifest.Added, AddedReason: unlessOK(manifest.AddedReason),
		},
		Transfers: list(v.deps.Views.Transfers()),
		Actors:    list(v.deps.Views.Actors()),
	}
}

// share returns the part of the context that each of several concurrent requests is guaranteed, or 0 if that is all
// of it.
func share(m messages.Model) int {
	if m.Share == m.Context {
		return 0
	}
	return m.Share
}

// frontDoor takes the address from the snapshot and not from the view: an address that the lifecycle actor
// does not consider bound is not shown.
func frontDoor(snapshot messages.Snapshot, door messages.DoorView) messages.StatusFrontDoor {
	view := messages.StatusFrontDoor{
		BaseURL: snapshot.BaseURL, InFlight: door.InFlight, Queued: door.Queued,
		MaxInFlight: door.MaxInFlight, QueueBound: door.QueueBound, Verdicts: door.Verdicts, Dropped: door.Dropped, EndedRuntime: door.EndedRuntime,
		Applications: door.Applications,
		LatencyCount: door.LatencyCount, LatencySumMilliseconds: milliseconds(door.LatencySum), Latency: buckets(door.Latency),
		FirstToken: buckets(door.First), FirstTokenCount: door.FirstCount, FirstTokenSumMilliseconds: milliseconds(door.FirstSum),
		PromptTokens: door.PromptTokens, CompletionTokens: door.CompletionTokens, GenerationSeconds: door.Generating.Seconds(), Progress: door.Progress,
	}
	if view.Verdicts == nil {
		view.Verdicts = map[messages.Reason]int64{}
	}
	return view
}

func buckets(histogram []messages.LatencyBucket) []messages.StatusLatency {
	var all []messages.StatusLatency
	for _, bucket := range histogram {
		all = append(all, messages.StatusLatency{UpToMilliseconds: milliseconds(bucket.UpTo), Count: bucket.Count})
	}
	return all
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func runtimeOf(snapshot messages.Snapshot, process messages.ProcessView, seen messages.Observation, inFlight int) messages.StatusRuntime {
	view := messages.StatusRuntime{
		Name: process.Name, Version: process.Version, PID: process.PID, Restarts: snapshot.Restarts,
		BackEnd: process.BackEnd, Pinned: process.Pinned, Yours: process.Own, Sandbox: process.Sandbox,
		LastExit: snapshot.LastExit, RetryAt: moment(snapshot.RetryAt), Held: snapshot.Held,
		Speculates: snapshot.Speculates, ExpectedBytes: process.ExpectedBytes,
		// A request wakes the model before the next probe reports it.
		Asleep: snapshot.Asleep && inFlight == 0,
	}
	// An observation of an earlier process says nothing about this one.
	if process.PID != 0 && seen.PID == process.PID && !seen.Failed {
		view.ResidentBytes, view.CPUPercent, view.GPUBytes = seen.ResidentBytes, seen.CPUPercent, seen.GPUBytes
	}
	return view
}

func session(view messages.SessionView) messages.StatusSession {
	status := messages.StatusSession{
		State: view.State, Reason: unlessOK(view.Reason), AccessExpires: moment(view.Expires),
		Trouble: view.Trouble, TroubleAt: moment(view.TroubleAt), Unrevoked: view.Unrevoked,
	}
	if status.State == "" {
		status.State = messages.SessionUnknown
	}
	if status.State == messages.SessionSignedIn {
		for _, name := range []string{view.User.Name, view.User.ID, view.User.Subject} {
			if status.User == "" {
				status.User = name
			}
		}
	}
	return status
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func unlessOK(reason messages.Reason) messages.Reason {
	if reason == messages.ReasonOK {
		return ""
	}
	return reason
}

// list returns an empty list for nil: scripts rely on an array in JSON.
func list[T any](values []T) []T {
	if values == nil {
		return []T{}
	}
	return values
}
