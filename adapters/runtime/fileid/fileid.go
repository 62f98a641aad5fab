// Package fileid tells which file an open descriptor is, so that the one who verified a file and the
// one who uses it later mean the same by "the same" (M9).
package fileid

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"companion/messages"
)

// Of reads what pins a verified file. Its error names no path.
func Of(f *os.File) (messages.FileIdentity, error) {
	id, err := of(f)
	if err != nil {
		var path *fs.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		return messages.FileIdentity{}, fmt.Errorf("reading a file's identity: %w", err)
	}
	return id, nil
}
