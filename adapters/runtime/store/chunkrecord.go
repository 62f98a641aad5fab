package store

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"path/filepath"

	"companion/adapters/privatefs"
	"companion/messages"
)

// chunkProgress is the part of a partial file's record about its chunks. The MAC detects a record that the store did not
// write, as in a pin; Device and Inode detect one of another file.
type chunkProgress struct {
	List          [sha256.Size]byte // of the manifest's digests: the record is valid for these only
	Device, Inode uint64
	Clean         bool          // the transfer ended in order: the record describes every byte on disk
	Verified      []byte        // a bit per chunk
	Have          map[int]int64 // bytes of chunks that are not verified; only with Clean
	MAC           []byte
}

func (p chunkProgress) has(i int) bool { return i/8 < len(p.Verified) && p.Verified[i/8]>>(i%8)&1 == 1 }

// snapshot returns the record of the present state.
func (as *Assembly) snapshot(clean bool) chunkProgress {
	as.mu.Lock()
	defer as.mu.Unlock()
	p := chunkProgress{
		List: listDigest(as.artifact), Device: as.identity.Device, Inode: as.identity.Inode, Clean: clean,
		Verified: make([]byte, (len(as.chunks)+7)/8),
	}
	for i := range as.chunks {
		switch c := &as.chunks[i]; {
		case c.verified:
			p.Verified[i/8] |= 1 << (i % 8)
		case c.have > 0 && clean:
			if p.Have == nil {
				p.Have = map[int]int64{}
			}
			p.Have[i] = c.have
		}
	}
	return p
}

// listDigest identifies the digests of an artifact's chunks.
func listDigest(a messages.Artifact) [sha256.Size]byte {
	h := sha256.New()
	_ = binary.Write(h, binary.BigEndian, a.ChunkSize) // a hash never fails
	for _, c := range a.Chunks {
		_, _ = h.Write(c[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func (as *Assembly) mac(p chunkProgress) []byte {
	p.MAC = nil
	data, err := json.Marshal(p)
	if err != nil {
		panic(err) // numbers and bytes only
	}
	h := hmac.New(sha256.New, as.store.key)
	_, _ = fmt.Fprintf(h, "companion chunks 1\n%s\n%s", filepath.Base(as.store.partial(as.artifact)), data)
	return h.Sum(nil)
}

func (as *Assembly) save(p chunkProgress) error {
	p.MAC = as.mac(p)
	data, err := json.Marshal(progress{Chunks: &p})
	if err == nil {
		err = privatefs.WriteFile(record(as.store.partial(as.artifact)), data)
	}
	if err != nil {
		return storing(err)
	}
	as.store.testOnlyStep()
	return nil
}

// partialBytes returns how many bytes of a partial file of this size are on disk: a file that is assembled from chunks has
// holes.
func (s *Store) partialBytes(a messages.Artifact, size int64) int64 {
	p, ok := readProgress(record(s.partial(a)))
	if !ok || p.Chunks == nil {
		return size
	}
	bytes := int64(0)
	for i := range a.Chunks {
		if p.Chunks.has(i) {
			bytes += min(a.ChunkSize, a.Size-int64(i)*a.ChunkSize)
		}
		bytes += p.Chunks.Have[i]
	}
	return min(bytes, size)
}

// readProgress reads the record of a partial file.
func readProgress(path string) (p progress, ok bool) {
	if privatefs.CheckFile(path) != nil {
		return p, false
	}
	data, err := privatefs.ReadRegular(path)
	return p, err == nil && json.Unmarshal(data, &p) == nil
}

// recorded returns the record of the partial file. It is empty if there is none, or none that the store wrote for this file
// and these chunks.
func (as *Assembly) recorded() chunkProgress {
	p, ok := readProgress(record(as.store.partial(as.artifact)))
	if !ok || p.Chunks == nil {
		return chunkProgress{}
	}
	c := *p.Chunks
	if !hmac.Equal(c.MAC, as.mac(c)) || c.List != listDigest(as.artifact) || c.Device != as.identity.Device || c.Inode != as.identity.Inode {
		return chunkProgress{}
	}
	return c
}
