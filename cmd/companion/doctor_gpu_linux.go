package main

import (
	"context"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// gpuDevices are the devices of GPUs, as the runtime's sandbox opens them.
var gpuDevices = []string{"/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dri/renderD*"}

// checkGPU says whether there is a GPU, whether the user may use it, and whether the runtime does. Only NVIDIA's memory is
// observed, so that only there a warning says that it is not used.
func checkGPU(_ context.Context, x *examination) []finding {
	var found []string
	for _, pattern := range gpuDevices {
		devices, err := filepath.Glob(pattern)
		if err == nil {
			found = append(found, devices...)
		}
	}
	if len(found) == 0 {
		return []finding{ok("no GPU device: the processor computes")}
	}
	for _, device := range found {
		if unix.Access(device, unix.R_OK|unix.W_OK) == nil {
			continue
		}
		return []finding{warning("add yourself to the group that owns it (ls -l "+device+"), and log in again", "you may not use %s: the processor computes", device)}
	}
	switch used := x.status != nil && x.status.Runtime.GPUBytes > 0; {
	case used:
		return []finding{ok("%s in use on the GPU", bytesText(x.status.Runtime.GPUBytes))}
	case x.status != nil && x.status.Runtime.PID != 0 && strings.Contains(filepath.Base(found[0]), "nvidia"):
		return []finding{warning("companion add a llama.cpp archive that is built for CUDA or Vulkan", "%s is here, and the runtime does not use it", found[0])}
	}
	return []finding{ok("%s can be used by a runtime that is built for it", found[0])}
}
