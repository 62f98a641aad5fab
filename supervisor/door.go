package supervisor

import (
	"time"

	"github.com/thejerf/suture/v4"

	"companion/actors/actorkit"
	"companion/actors/door/control"
	"companion/actors/door/frontdoor"
	"companion/actors/door/health"
	"companion/adapters/door/healthprobe"
	"companion/adapters/runtime/spawn"
	"companion/fsm"
	"companion/messages"
)

// doorWing builds the actors that may hold the loopback token and no other secret: front door, health,
// control.
func doorWing(o Options, b boxes, quarantine *frontdoor.Quarantine, actors *actorkit.Watch[[]messages.ActorView]) []suture.Service {
	door := frontdoor.New(frontdoor.Deps{
		Address: o.Settings.FrontDoor.Address, Port: uint16(o.Settings.FrontDoor.Port), EndpointPath: o.Places.Endpoint, TokensPath: o.Places.Tokens, Bounds: bounds(o),
		Inbox: b.frontDoor, Lifecycle: b.lifecycle, Custody: b.loopback, Health: b.health,
		Quarantine: quarantine, Snapshot: b.snapshot, Observation: b.observation,
		Log: o.Logger.Named(string(messages.ActorFrontDoor)),
	})
	probes, _ := fsm.SleepTimes(o.Settings.Runtime.IdleUnload)
	return []suture.Service{
		door,
		health.New(health.Deps{
			Inbox: b.health, Lifecycle: b.lifecycle, FrontDoor: b.frontDoor, Snapshot: b.snapshot,
			Door: door.View, Observation: b.observation.Get, GPU: spawn.HasGPU(), Prober: healthprobe.New(),
			Beat: o.Settings.Health.Beat, IdleAfter: o.Settings.Health.IdleProbe, ProbeIdle: probes,
			StartDeadline: o.Settings.Runtime.StartTimeout,
			Log:           o.Logger.Named(string(messages.ActorHealth)),
		}),
		control.New(control.Deps{
			Lifecycle: b.lifecycle, Session: b.session, Manifest: b.manifest, FrontDoor: b.frontDoor, Snapshot: b.snapshot,
			Views: control.Views{
				Door: door.View, Process: b.processView.Get, Observation: b.observation.Get,
				Session: b.sessionView.Get, Manifest: b.manifestView.Get, Transfers: b.transfers.Get, Actors: actors.Get,
			},
			SocketPath: o.Places.ControlSocket, Version: o.Version, StartedAt: time.Now(),
			Recency: o.Settings.Health.Recency,
			Log:     o.Logger.Named(string(messages.ActorControl)),
		}),
	}
}

func bounds(o Options) frontdoor.Bounds {
	bounds := frontdoor.DefaultBounds()
	door, runtime := o.Settings.FrontDoor, o.Settings.Runtime
	bounds.RatePerMinute = door.RatePerMinute
	bounds.DropUnknown = door.UnknownFields == "drop"
	bounds.MaxInFlight, bounds.QueueBound, bounds.QueueTimeout = runtime.MaxInFlight, runtime.QueueBound, runtime.QueueTimeout
	bounds.Resources = limits(o)
	bounds.HeadBytes, bounds.HeadTime = int(door.MaxHead), door.HeadTimeout
	bounds.BodyBytes, bounds.BodyTime = door.MaxBody, door.BodyTimeout
	bounds.BodyMemory = max(bounds.BodyMemory, 4*door.MaxBody) // room for one body of the largest size and its re-encoded form
	bounds.IdleTime, bounds.Connections, bounds.WriteStall = door.IdleTimeout, door.MaxConnections, door.StallTimeout
	return bounds
}

func limits(o Options) messages.ResourceLimits {
	runtime := o.Settings.Runtime
	return messages.ResourceLimits{
		ResidentBytes: runtime.MemoryLimit, GPUBytes: runtime.GPUMemoryLimit, CPUPercent: runtime.CPULimit,
	}
}
