// Package fileid returns the identity of an open file: device, inode, size and times. The package that
// verifies a file and the one that uses it later compare it to detect a replaced or changed file (M9).
package fileid

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"companion/messages"
)

// Of returns the identity of an open file. Its error does not contain the path.
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
