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
	"syscall"

	"golang.org/x/sync/errgroup"

	"companion/adapters/runtime/fileid"
	"companion/messages"
)

// OpenModel opens the model and checks on the descriptor that it is the verified file (M9). The runtime gets this
// descriptor, so that the file cannot be replaced afterwards. Of a model of several files it opens the first.
func OpenModel(m messages.VerifiedModel) (*os.File, error) {
	return openVerified(m.Name, "opening the model", m.Path, m.Identity)
}

// OpenPart does the same for a further file of the model.
func OpenPart(m messages.VerifiedModel, p messages.VerifiedPart) (*os.File, error) {
	return openVerified(m.Name, "opening "+p.Name+" of the model", p.Path, p.Identity)
}

func openVerified(name, doing, path string, want messages.FileIdentity) (*os.File, error) {
	refuse := func(err error) (*os.File, error) {
		return nil, &Error{messages.ReasonInvalidModelPath, doing, name, pathless(err)}
	}
	if !filepath.IsAbs(path) {
		return refuse(errors.New("its path is not absolute"))
	}
	f, err := openRegular(path)
	if differs(err) {
		return refuse(ErrIdentityChanged)
	} else if err != nil {
		return nil, failed(doing, err)
	}
	id, err := fileid.Of(f)
	if err != nil {
		_ = f.Close()
		return nil, failed(doing, err)
	}
	if id != want {
		_ = f.Close()
		return refuse(ErrIdentityChanged)
	}
	return f, nil
}

// SameModel returns nil if the files at the model's places are still the verified ones, and an *Error otherwise.
func SameModel(m messages.VerifiedModel) error {
	f, err := OpenModel(m)
	if err != nil {
		return err
	}
	_ = f.Close()
	for _, p := range m.Parts {
		if f, err = OpenPart(m, p); err != nil {
			return err
		}
		_ = f.Close()
	}
	return nil
}

// openRuntime opens the executable of the runtime, which must be a regular file that the user or root owns and no other
// user may write (M10). It does not hash it.
func openRuntime(r messages.VerifiedRuntime) (*os.File, error) {
	if !filepath.IsAbs(r.Dir) || !filepath.IsLocal(filepath.FromSlash(r.Executable)) {
		return nil, distrust(r, messages.ReasonInvalidBinaryPath, errors.New("its path is not absolute, or leaves its folder"))
	}
	executable, err := openRegular(filepath.Join(r.Dir, filepath.FromSlash(r.Executable)))
	if err != nil {
		return nil, refusal(r, messages.ReasonInvalidBinaryPath, err)
	}
	if err := trusted(executable); err != nil {
		_ = executable.Close()
		return nil, refusal(r, messages.ReasonBinaryUntrusted, err)
	}
	return executable, nil
}

// verifyRuntime hashes every file of a pinned runtime, and the executable through the descriptor that will be executed
// (M10).
func verifyRuntime(r messages.VerifiedRuntime, executable *os.File) error {
	if !r.Pinned {
		return nil
	}
	err := verifyTree(r, executable)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errWrongBytes):
		return refusal(r, messages.ReasonDigestMismatch, err)
	default:
		return refusal(r, messages.ReasonBinaryUntrusted, err)
	}
}

func distrust(r messages.VerifiedRuntime, reason messages.Reason, err error) *Error {
	return &Error{reason, "checking the runtime", r.Name, pathless(err)}
}

// refusal returns the Error for a runtime that failed its check. A difference has the given reason; in a pinned runtime it is
// marked with ErrIdentityChanged. A check that could not be made, because of a read error or too many open files, says nothing
// about the files: it is a failed start.
func refusal(r messages.VerifiedRuntime, reason messages.Reason, err error) *Error {
	if !differs(err) {
		return failed("checking the runtime", err)
	}
	refused := distrust(r, reason, err)
	if r.Pinned {
		refused.Err = fmt.Errorf("%w: %w", ErrIdentityChanged, refused.Err)
	}
	return refused
}

// differs reports whether an error of a check says what was found, as opposed to that it could not be looked at. A file
// without permission is found with another mode.
func differs(err error) bool {
	for _, found := range []error{errNotRegular, errWrongBytes, errListing, errUntrusted, fs.ErrNotExist, fs.ErrPermission, syscall.ENOTDIR} {
		if errors.Is(err, found) {
			return true
		}
	}
	return false
}

var (
	errNotRegular = errors.New("it is not a regular file")
	errWrongBytes = errors.New("a file of it has other bytes than the manifest says")
	errListing    = errors.New("its folder does not hold exactly what the manifest lists")
)

// verifyTree compares the folder with the manifest's list. It also refuses an extra file: the loader prefers a library in
// a folder named after the processor to the verified one.
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
			return sameLink(path, want)
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

func sameLink(path string, want messages.ArchiveFile) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSymlink {
		return errListing
	}
	target, err := os.Readlink(path)
	if err != nil {
		return err
	}
	if target != want.LinkTarget {
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
