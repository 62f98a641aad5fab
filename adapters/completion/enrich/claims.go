package enrich

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
)

// Claims keeps two runs from working on one note at the same time, so that its text is sent once. A claim is a lock on
// one byte of a file, which the system releases when the run ends in any way. Only the place in the file tells which note
// it is, and nothing is written. A nil Claims claims every note at once. Safe for concurrent use.
type Claims struct {
	mu   sync.Mutex // a batch that has ended may still look at a note while the claims are closed
	file *os.File   // nil: closed
}

// OpenClaims opens or makes the file (mode 0600), which all runs of this user share.
func OpenClaims(name string) (*Claims, error) {
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the claims of enrich: %w", err)
	}
	return &Claims{file: file}, nil
}

// Close gives back every claim.
func (c *Claims) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file == nil {
		return nil
	}
	file := c.file
	c.file = nil
	return file.Close()
}

// take claims the note, and reports whether it could: another run may work on it.
func (c *Claims) take(n Note) (bool, error) {
	if c == nil || n.Path == Standard {
		return true, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file == nil {
		return false, fmt.Errorf("claiming the note: %w", os.ErrClosed)
	}
	taken, err := lockByte(c.file, claimPlace(n))
	if err != nil {
		return false, fmt.Errorf("claiming the note: %w", err)
	}
	return taken, nil
}

// release gives the claim back. The system releases it at the end of the run otherwise.
func (c *Claims) release(n Note) {
	if c == nil || n.Path == Standard || n.Path == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file != nil {
		_ = unlockByte(c.file, claimPlace(n))
	}
}

// claimPlace is the offset of the note's byte.
func claimPlace(n Note) int64 {
	at := keyOf(n.Real, "")
	return int64(binary.BigEndian.Uint64(at[:8]) >> 2) // well below the largest offset of all systems
}
