package loopback

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"companion/adapters/privatefs"
)

// Endpoint is what local clients need to find the front door (L2).
type Endpoint struct {
	BaseURL   string    `json:"baseURL"`
	PID       int       `json:"pid"`
	StartedAt time.Time `json:"startedAt"`
}

// WriteEndpoint writes the endpoint file with mode 0600 in a folder with mode 0700. If it fails, the caller
// logs the error and goes on; nothing becomes accessible to others (L2).
func WriteEndpoint(path string, e Endpoint) error {
	if err := privatefs.EnsureDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("preparing the endpoint file's folder: %w", err)
	}
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encoding the endpoint file: %w", err)
	}
	if err := privatefs.WriteFile(path, data); err != nil {
		return fmt.Errorf("writing the endpoint file: %w", err)
	}
	return nil
}

// ReadEndpoint reads the endpoint file. The error is fs.ErrNotExist when there is none.
func ReadEndpoint(path string) (Endpoint, error) {
	var e Endpoint
	if err := privatefs.CheckDir(filepath.Dir(path)); err != nil {
		return e, fmt.Errorf("checking the endpoint file's folder: %w", err)
	}
	if err := privatefs.CheckFile(path); err != nil {
		return e, fmt.Errorf("checking the endpoint file: %w", err)
	}
	data, err := privatefs.ReadRegular(path)
	if err != nil {
		return e, fmt.Errorf("reading the endpoint file: %w", err)
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return Endpoint{}, fmt.Errorf("reading the endpoint file: %w", err)
	}
	return e, nil
}

// RemoveEndpoint removes the endpoint file at shutdown. A missing file is not an error.
func RemoveEndpoint(path string) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("removing the endpoint file: %w", err)
	}
	return nil
}
