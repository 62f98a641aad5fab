package supervisor

import (
	"crypto/x509"
	"fmt"
	"runtime"

	"github.com/thejerf/suture/v4"
	"go.uber.org/zap"

	"companion/actors/runtime/process"
	"companion/actors/runtime/provision"
	"companion/actors/runtime/resources"
	"companion/adapters/runtime/download"
	"companion/adapters/runtime/spawn"
	"companion/adapters/runtime/store"
	"companion/fsm"
	"companion/messages"
)

// outputActor is the actor name of the runtime's output in the log (R8).
const outputActor = "llama-server"

// runtimeWing builds the actors that download artifacts and run the runtime process, and hold no secret:
// provision, process, resources. roots are the certificate authorities for downloads; nil means the system's.
func runtimeWing(o Options, b boxes, roots *x509.CertPool) ([]suture.Service, error) {
	artifacts, err := store.Open(o.Places.Data)
	if err != nil {
		return nil, fmt.Errorf("opening the artifact store: %w", err)
	}
	s := o.Settings
	artifacts.SetBudget(s.Disk.Budget)
	_, sleep := fsm.SleepTimes(s.Runtime.IdleUnload)
	named := func(actor messages.Actor) *zap.Logger { return o.Logger.Named(string(actor)) }
	return []suture.Service{
		provision.New(provision.Deps{
			Inbox: b.provision, Lifecycle: b.lifecycle, Transfers: b.transfers, Store: artifacts,
			Download: download.New(roots, 0), Unpinned: s.Runtime.AllowUnpinnedBinary,
			Log: named(messages.ActorProvision),
		}),
		process.New(process.Deps{
			Inbox: b.process, Lifecycle: b.lifecycle, View: b.processView,
			RunDir: o.Places.BackEnd, RecordPath: o.Places.Reclaim, OptionsPath: o.Places.Options,
			Context: s.Model.Context, Threads: s.Runtime.Threads, MaxInFlight: s.Runtime.MaxInFlight,
			MemoryLimit: s.Runtime.MemoryLimit, GPU: spawn.HasGPU(), Sandbox: spawn.Mode(s.Runtime.Sandbox),
			Speculate: s.Runtime.Speculation == "auto", PromptCache: s.Runtime.PromptCache,
			SleepAfter: sleep, Background: s.Runtime.Priority == "background",
			StartDeadline: s.Runtime.StartTimeout, KillGrace: s.Runtime.StopTimeout,
			Log: named(messages.ActorProcess), Output: o.Logger.Named(outputActor),
		}),
		resources.New(resources.Deps{
			Process: b.processView, Snapshot: b.snapshot, Lifecycle: b.lifecycle, Observation: b.observation,
			Limits: limits(o), Log: named(messages.ActorResources),
		}),
	}, nil
}

// Platform is this machine's platform in the manifest (M2), such as "linux/amd64".
func Platform() string { return runtime.GOOS + "/" + runtime.GOARCH }
