//go:build linux && cgo

package probe

import (
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
)

// fakeNVML implements what the probe needs. The mocks panic at every other call, so that listing the processes
// of a device fails the test.
func fakeNVML(initialised nvml.Return, used ...uint64) *mock.Interface {
	return &mock.Interface{
		InitFunc:           func() nvml.Return { return initialised },
		ShutdownFunc:       func() nvml.Return { return nvml.SUCCESS },
		DeviceGetCountFunc: func() (int, nvml.Return) { return len(used), nvml.SUCCESS },
		DeviceGetHandleByIndexFunc: func(i int) (nvml.Device, nvml.Return) {
			return &mock.Device{GetMemoryInfoFunc: func() (nvml.Memory, nvml.Return) {
				return nvml.Memory{Used: used[i]}, nvml.SUCCESS
			}}, nvml.SUCCESS
		},
	}
}

// P1, T9: GPU memory is the sum over devices, no process is enumerated, and no library means 0.
func TestGPUMemory(t *testing.T) {
	tests := map[string]struct {
		library *mock.Interface
		want    int64
	}{
		"two devices": {fakeNVML(nvml.SUCCESS, 3, 4), 7},
		"no device":   {fakeNVML(nvml.SUCCESS), 0},
		"no library":  {fakeNVML(nvml.ERROR_LIBRARY_NOT_FOUND, 3), 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			g := &nvmlGPU{library: test.library}
			for range 2 {
				if used := g.used(); used != test.want {
					t.Errorf("got %d, want %d", used, test.want)
				}
			}
			if calls := len(test.library.InitCalls()); calls != 1 {
				t.Errorf("got %d loads, want 1", calls)
			}
			g.close()
		})
	}
}

// P1: both the real library and its absence work without an error.
func TestRealNVML(t *testing.T) {
	g := newGPU()
	defer g.close()
	if used := g.used(); used < 0 {
		t.Errorf("got %d, want 0 or more", used)
	}
}
