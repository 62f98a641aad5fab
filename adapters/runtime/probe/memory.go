package probe

import (
	"math"

	"github.com/shirou/gopsutil/v3/mem"
)

// FreeMemory returns the bytes that programs can take without swapping, or 0 if the system does not say.
func FreeMemory() int64 {
	seen, err := mem.VirtualMemory()
	if err != nil {
		return 0
	}
	return int64(min(seen.Available, math.MaxInt64))
}
