package store

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"companion/adapters/privatefs"
	"companion/messages"
)

// A pin is the record of a verified file: the file's identity at verification, and a MAC over it. A file whose identity equals
// the pinned one is not read again (M9). The MAC detects a record that the store did not write, such as one that was copied or
// edited with the file. The key is in a private file, so the MAC does not protect against a program of the same user.
type pin struct {
	Identity messages.FileIdentity
	MAC      []byte
}

const (
	pinKeyFile = "pin.key"
	pinKeySize = 32
)

// pinKey reads the key of the pins, or makes one. With a new key every file is read again.
func pinKey(path string) ([]byte, error) {
	key, err := privatefs.ReadRegular(path)
	switch {
	case err == nil && len(key) == pinKeySize:
		if err := privatefs.CheckFile(path); err != nil {
			return nil, err
		}
		return key, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("reading the key of the pins: %w", bare(err))
	}
	key = make([]byte, pinKeySize)
	_, _ = rand.Read(key) // never fails
	if err := privatefs.WriteFile(path, key); err != nil {
		return nil, err
	}
	return key, nil
}

// mac authenticates an identity for the file of that name.
func (s *Store) mac(path string, id messages.FileIdentity) []byte {
	h := hmac.New(sha256.New, s.key)
	_, _ = fmt.Fprintf(h, "companion pin 1\n%s\n%d %d %d %d %d\n", filepath.Base(path),
		id.Device, id.Inode, id.Size, id.ModifiedNano, id.ChangeNano)
	return h.Sum(nil)
}

// pin records the identity of a file that was just verified.
func (s *Store) pin(path string, id messages.FileIdentity) error {
	data, err := json.Marshal(pin{id, s.mac(path, id)})
	if err != nil {
		return err
	}
	return privatefs.WriteFile(record(path), data)
}

// pinned returns the pinned identity. It returns the zero value, which no file has, if the record is missing or the store did
// not write it.
func (s *Store) pinned(path string) messages.FileIdentity {
	if privatefs.CheckFile(record(path)) != nil {
		return messages.FileIdentity{}
	}
	var p pin
	data, err := privatefs.ReadRegular(record(path))
	if err != nil || json.Unmarshal(data, &p) != nil || !hmac.Equal(p.MAC, s.mac(path, p.Identity)) {
		return messages.FileIdentity{}
	}
	return p.Identity
}
