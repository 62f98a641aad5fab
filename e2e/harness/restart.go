package harness

import "path/filepath"

// Restart starts the hub again after it has ended, on the same ports and with the state in its folder.
func (h *Hub) Restart() {
	h.t.Helper()
	h.Process = serve(h.t, filepath.Dir(h.Dir), h.Dir).Process
}
