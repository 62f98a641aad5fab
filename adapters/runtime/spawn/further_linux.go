package spawn

import (
	"fmt"
	"os"
)

func modelPath(*os.File) string { return fmt.Sprintf("/proc/self/fd/%d", modelFD) }

func furtherPath(i int, _ *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", furtherFD+i) }

// descriptors are the files of the model that the runtime may read.
func (p *preparation) descriptors() []string {
	paths := []string{modelPath(p.model)}
	for i, f := range p.further {
		paths = append(paths, furtherPath(i, f.file))
	}
	return paths
}
