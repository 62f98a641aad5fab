//go:build linux && cgo

package probe

import "github.com/NVIDIA/go-nvml/pkg/nvml"

// nvmlGPU reads the memory in use on each device through NVML, and nothing about processes. Only its Probe
// uses it.
type nvmlGPU struct {
	library nvml.Interface
	state   nvmlState
}

type nvmlState int

const (
	nvmlUntried nvmlState = iota
	nvmlLoaded
	nvmlAbsent
)

func newGPU() gpu { return &nvmlGPU{library: nvml.New()} }

func (g *nvmlGPU) used() int64 {
	if g.state == nvmlUntried {
		g.state = nvmlAbsent
		if g.library.Init() == nvml.SUCCESS {
			g.state = nvmlLoaded
		}
	}
	if g.state == nvmlAbsent {
		return 0
	}
	count, result := g.library.DeviceGetCount()
	if result != nvml.SUCCESS {
		return 0
	}
	var used int64
	for i := range count {
		device, result := g.library.DeviceGetHandleByIndex(i)
		if result != nvml.SUCCESS {
			continue
		}
		if memory, result := device.GetMemoryInfo(); result == nvml.SUCCESS {
			used += int64(memory.Used)
		}
	}
	return used
}

func (g *nvmlGPU) close() {
	if g.state == nvmlLoaded {
		_ = g.library.Shutdown()
	}
	g.state = nvmlUntried
}
