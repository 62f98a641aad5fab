// Package selection records which model the user chose with `companion use`, in a private file of the state folder. A
// change of model.name in the configuration is newer than the choice, so that it ends it.
package selection

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"companion/adapters/privatefs"
)

// File is the record. Configured is model.name of the configuration.
type File struct{ Path, Configured string }

type content struct {
	Model      string `json:"model"`
	Configured string `json:"configured"` // when the choice was made
}

// Load returns the chosen model. It is empty if none is recorded, or if the configuration has changed since; then the record
// is removed. A file that another user could have written is an error.
func (f File) Load() (string, error) {
	data, err := privatefs.ReadRegular(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading the chosen model: %w", err)
	}
	if err := privatefs.CheckFile(f.Path); err != nil {
		return "", err
	}
	var c content
	if err := json.Unmarshal(data, &c); err != nil {
		return "", errors.Join(fmt.Errorf("reading the chosen model: %w", err), f.Store(""))
	}
	if c.Configured != f.Configured {
		return "", f.Store("")
	}
	return c.Model, nil
}

// Store records a model; an empty name removes the record.
func (f File) Store(model string) error {
	if model == "" {
		if err := os.Remove(f.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the chosen model: %w", err)
		}
		return nil
	}
	data, err := json.Marshal(content{model, f.Configured})
	if err != nil {
		return fmt.Errorf("encoding the chosen model: %w", err)
	}
	return privatefs.WriteFile(f.Path, data)
}
