package spawn

import (
	"fmt"
	"os"
)

func modelPath(*os.File) string { return fmt.Sprintf("/dev/fd/%d", modelFD) }

// furtherPath is the descriptor as the lifeline numbers it. Untested on real machines.
func furtherPath(i int, _ *os.File) string { return fmt.Sprintf("/dev/fd/%d", modelFD+1+i) }
