package spawn

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"

	"companion/messages"
)

// openModel opens the model and checks on the descriptor that it is the file that was verified (M9).
// The runtime is given this descriptor, so that nothing can be put in its place.
func openModel(m messages.VerifiedModel) (*os.File, error) {
	refuse := func(err error) (*os.File, error) {
		return nil, &Error{messages.ReasonInvalidModelPath, "opening the model", m.Name, pathless(err)}
	}
	if !filepath.IsAbs(m.Path) {
		return refuse(errors.New("its path is not absolute"))
	}
	f, err := openRegular(m.Path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotRegular) {
		return refuse(ErrIdentityChanged)
	} else if err != nil {
		return refuse(err)
	}
	identity, err := Identity(f)
	if err == nil && identity != m.Identity {
		err = ErrIdentityChanged
	}
	if err != nil {
		_ = f.Close()
		return refuse(err)
	}
	return f, nil
}

// openRuntime checks every file of the runtime again (M10) and returns its executable. What it
// returns was hashed through the descriptor that will be executed.
func openRuntime(r messages.VerifiedRuntime) (*os.File, error) {
	refuse := func(reason messages.Reason, err error) (*os.File, error) {
		return nil, &Error{reason, "checking the runtime", r.Name, pathless(err)}
	}
	if !filepath.IsAbs(r.Dir) || !filepath.IsLocal(filepath.FromSlash(r.Executable)) {
		return refuse(messages.ReasonInvalidBinaryPath, errors.New("its path is not absolute, or leaves its folder"))
	}
	executable, err := openRegular(filepath.Join(r.Dir, filepath.FromSlash(r.Executable)))
	if err != nil {
		return refuse(messages.ReasonInvalidBinaryPath, err)
	}
	if err := trusted(executable); err != nil {
		_ = executable.Close()
		return refuse(messages.ReasonBinaryUntrusted, err)
	}
	if !r.Pinned {
		return executable, nil
	}
	if err := verifyTree(r, executable); err != nil {
		_ = executable.Close()
		reason := messages.ReasonBinaryUntrusted
		if errors.Is(err, errWrongBytes) {
			reason = messages.ReasonDigestMismatch
		}
		return refuse(reason, err)
	}
	return executable, nil
}

var (
	errNotRegular = errors.New("it is not a regular file")
	errWrongBytes = errors.New("a file of it has other bytes than the manifest says")
	errListing    = errors.New("its folder does not hold exactly what the manifest lists")
)

// verifyTree compares the folder with the manifest's list. An extra file is refused as well: the
// loader prefers a library in a folder named after the processor to the one that was hashed.
func verifyTree(r messages.VerifiedRuntime, executable *os.File) error {
	listed := make(map[string]messages.ArchiveFile, len(r.Files))
	for _, f := range r.Files {
		listed[filepath.FromSlash(f.Path)] = f
	}
	var hashes errgroup.Group
	hashes.SetLimit(runtime.GOMAXPROCS(0))
	seen := 0
	walk := filepath.WalkDir(r.Dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(r.Dir, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return trustedPath(path)
		}
		want, ok := listed[name]
		if !ok {
			return errListing
		}
		seen++
		if want.LinkTarget != "" {
			if target, err := os.Readlink(path); err != nil || target != want.LinkTarget {
				return errListing
			}
			return nil
		}
		hashes.Go(func() error {
			if name == filepath.FromSlash(r.Executable) {
				return sameBytes(executable, want)
			}
			return sameFile(path, want)
		})
		return nil
	})
	if err := errors.Join(walk, hashes.Wait()); err != nil {
		return err
	}
	if executableFile, ok := listed[filepath.FromSlash(r.Executable)]; seen != len(r.Files) || !ok || executableFile.LinkTarget != "" {
		return errListing
	}
	return nil
}

func sameFile(path string, want messages.ArchiveFile) error {
	f, err := openRegular(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := trusted(f); err != nil {
		return err
	}
	return sameBytes(f, want)
}

func sameBytes(f *os.File, want messages.ArchiveFile) error {
	hash := sha256.New()
	n, err := io.Copy(hash, io.NewSectionReader(f, 0, want.Size+1))
	if err != nil {
		return fmt.Errorf("reading a file of the runtime: %w", err)
	}
	if n != want.Size || subtle.ConstantTimeCompare(hash.Sum(nil), want.SHA256[:]) != 1 {
		return errWrongBytes
	}
	return nil
}
