//go:build !linux || !cgo

package probe

// noGPU is used where NVML cannot be loaded.
type noGPU struct{}

func newGPU() gpu         { return noGPU{} }
func (noGPU) used() int64 { return 0 }
func (noGPU) close()      {}
