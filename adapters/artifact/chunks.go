package artifact

import "companion/messages"

// Limits of chunks (M14). A publisher uses 16 to 64 MiB; a client also accepts smaller chunks.
const (
	MinChunk = 64 << 10
	MaxChunk = 64 << 20
	// MaxChunks covers MaxSize with the largest chunks. The digests then take about one MiB of the manifest.
	MaxChunks = MaxSize / MaxChunk
)

// ChunkSize returns the chunk size that a publisher uses for a file. It is 0 for a file that is not larger than one chunk: its
// own digest suffices. Larger files get larger chunks, so that the manifest has at most about 500 digests of a file of 32 GiB.
func ChunkSize(size int64) int64 {
	const smallest = 16 << 20
	switch {
	case size <= smallest:
		return 0
	case size <= 8<<30:
		return smallest
	case size <= 16<<30:
		return 2 * smallest
	}
	return 4 * smallest
}

// CountChunks returns the number of chunks of a file.
func CountChunks(size, chunkSize int64) int { return int((size + chunkSize - 1) / chunkSize) }

// Chunks converts the digests of a manifest entry.
func Chunks(listed []string) ([][32]byte, error) {
	if len(listed) > MaxChunks {
		return nil, refuse("%d chunks, want at most %d", len(listed), MaxChunks)
	}
	var chunks [][32]byte
	for _, text := range listed {
		d, ok := digest(text)
		if !ok {
			return nil, refuse("a chunk without a digest in lower-case hex")
		}
		chunks = append(chunks, d)
	}
	return chunks, nil
}

// checkChunks refuses digests that do not cover the file exactly. An artifact without chunks is valid.
func checkChunks(a messages.Artifact) error {
	switch {
	case a.ChunkSize == 0 && len(a.Chunks) == 0:
		return nil
	case a.ChunkSize < MinChunk || a.ChunkSize > MaxChunk:
		return refuse("chunks of %d bytes, want %d to %d", a.ChunkSize, MinChunk, MaxChunk)
	}
	if want := CountChunks(a.Size, a.ChunkSize); len(a.Chunks) != want {
		return refuse("digests of %d chunks for a file of %d", len(a.Chunks), want)
	}
	return nil
}
