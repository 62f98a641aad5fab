package store

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"companion/adapters/privatefs"
	"companion/adapters/runtime/fileid"
	"companion/messages"
)

// Way is how the bytes of an imported file came into the store.
type Way string

// The ways, in the order in which Import tries them.
const (
	WayHere  Way = "here"  // the store had the same bytes
	WayClone Way = "clone" // a file of its own that shares the blocks of the other
	WayLink  Way = "link"  // the user's own file, under a second name and read-only
	WayCopy  Way = "copy"
	WayMove  Way = "move" // with Import.Move
)

// Import is a file of the user to bring into the store (M16).
type Import struct {
	Dir  string // of the store; no daemon needs to run, and one may
	File string
	Kind messages.ArtifactKind
	// Want is the digest that the file must have; nil: any.
	Want *[32]byte
	Copy bool // never a link
	Move bool // the file itself, which is in ImportDir, is moved into the store
	// Budget bounds the size of all artifacts on disk (M15); 0: no bound. A link takes nothing of it.
	Budget int64
	// Progress is called with the number of bytes that were read, while Run reads the file.
	Progress func(int64)

	testOnlyClone func(to, from *os.File) error
	testOnlySync  func(*os.File) error
}

// Imported is the result of an Import.
type Imported struct {
	SHA256 [32]byte
	Size   int64
	Way    Way
	mode   fs.FileMode // of a linked file before it became read-only
	linked string      // the second name of a linked file
}

// Undo takes a link back, because the file is not added after all: the user's file has one name and its mode again. Anything else
// that was imported is removed by a clean-up.
func (i Imported) Undo() error {
	if i.Way != WayLink {
		return nil
	}
	return errors.Join(os.Chmod(i.linked, i.mode), os.Remove(i.linked))
}

// Run places the file under its digest. It is not verified by that: the daemon reads it once more before its first use, like
// every file without a record. Bytes are not copied where a clone or a link can be made. A failure leaves the file and the
// store as they were. Errors: *Error with digest_mismatch, no_space or transfer_failed, or the cause of ctx's end.
func (m Import) Run(ctx context.Context) (Imported, error) {
	for _, sub := range []string{"", "models", linksFolder, "archives", importFolder} {
		if err := privatefs.EnsureDir(filepath.Join(m.Dir, sub)); err != nil {
			return Imported{}, fmt.Errorf("preparing the data folder: %w", err)
		}
	}
	_, _ = pruneAdding(m.Dir, time.Now(), false) // a failure is of old files
	temporary, unlock, err := lockTemporary(filepath.Join(m.Dir, importFolder))
	if err != nil {
		return Imported{}, err
	}
	defer unlock()
	defer func() { _, _ = os.Remove(temporary), os.Remove(temporary+importMode) }() // before it is unlocked
	place := m.place
	if m.Move {
		place = m.move
	}
	done, err := place(ctx, temporary)
	if err != nil {
		return Imported{}, err
	}
	if m.Want != nil && subtle.ConstantTimeCompare(done.SHA256[:], m.Want[:]) != 1 {
		return Imported{}, &Error{Reason: messages.ReasonDigestMismatch, what: "the file does not have the given digest"}
	}
	s := &Store{dir: m.Dir}
	a := messages.Artifact{Kind: m.Kind, SHA256: done.SHA256}
	final := s.final(a)
	if _, err := os.Lstat(final); err == nil {
		if done.Way == WayLink {
			_ = os.Chmod(temporary, done.mode)
		}
		done.Way = WayHere
		return done, nil
	}
	if done.Way == WayLink {
		final = s.linked(a)
		done.linked = final
	}
	if err := errors.Join(os.Rename(temporary, final), privatefs.SyncDir(filepath.Dir(final))); err != nil {
		if done.Way == WayLink {
			_ = os.Chmod(temporary, done.mode)
		}
		return Imported{}, storing(err)
	}
	return done, nil
}

// place brings the bytes under a temporary name and returns their digest, which it reads from there.
func (m Import) place(ctx context.Context, temporary string) (Imported, error) {
	from, err := os.Open(m.File)
	if err != nil {
		return Imported{}, &Error{messages.ReasonInvalidModelPath, "opening the file", bare(err)}
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return Imported{}, &Error{Reason: messages.ReasonInvalidModelPath, what: "not a regular file"}
	}
	to, err := createPrivate(temporary)
	if err != nil {
		return Imported{}, storing(err)
	}
	defer to.Close()
	over := m.fits(info.Size())
	if over == nil && m.clone(to, from) == nil {
		done, err := m.read(ctx, to, io.Discard, WayClone)
		return m.synced(done, err, to)
	}
	if m.Kind == messages.KindModel && !m.Copy && linkable(info) {
		if done, err := m.link(ctx, from, info, temporary); !errors.Is(err, errNoLink) {
			return done, err
		}
		if err := seek(from, 0); err != nil {
			return Imported{}, unreadable(ctx, err)
		}
	}
	if over != nil {
		return m.alreadyHere(ctx, from, over)
	}
	if err := space(m.Dir, info.Size()); err != nil {
		return Imported{}, err
	}
	if err := to.Truncate(info.Size()); err != nil { // its whole size counts for the daemon's budget at once
		return Imported{}, storing(err)
	}
	done, err := m.read(ctx, from, to, WayCopy)
	if err == nil {
		err = to.Truncate(done.Size)
	}
	return m.synced(done, err, to)
}

// fits returns over_budget if that many bytes do not fit into the budget.
func (m Import) fits(size int64) error {
	if m.Budget == 0 {
		return nil
	}
	used, err := Usage(m.Dir)
	if err != nil {
		return err
	}
	return overBudget(size, used, m.Budget)
}

// alreadyHere returns the error over, unless the store has the same file: then nothing more is needed.
func (m Import) alreadyHere(ctx context.Context, from io.Reader, over error) (Imported, error) {
	done, err := m.read(ctx, from, io.Discard, WayHere)
	if err != nil {
		return done, err
	}
	if _, err := os.Lstat((&Store{dir: m.Dir}).final(messages.Artifact{Kind: m.Kind, SHA256: done.SHA256})); err != nil {
		return done, over
	}
	return done, nil
}

func (m Import) clone(to, from *os.File) error {
	if m.testOnlyClone != nil {
		return m.testOnlyClone(to, from)
	}
	return clone(to, from)
}

// synced writes a clone or a copy to the disk, before it gets its final name.
func (m Import) synced(done Imported, err error, to *os.File) (Imported, error) {
	sync := (*os.File).Sync
	if m.testOnlySync != nil {
		sync = m.testOnlySync
	}
	if err == nil && sync(to) != nil {
		return done, &Error{Reason: messages.ReasonTransferFailed, what: "writing the file to the disk"}
	}
	return done, err
}

// move takes a file of ImportDir.
func (m Import) move(ctx context.Context, temporary string) (Imported, error) {
	file, _, err := openPrivate(m.File, os.O_RDONLY)
	if err != nil {
		return Imported{}, err
	}
	defer file.Close()
	done, err := m.read(ctx, file, io.Discard, WayMove)
	if err == nil {
		err = errors.Join(file.Sync(), os.Rename(m.File, temporary))
	}
	return done, err
}

var errNoLink = errors.New("no hard link can be made")

// link gives the user's file, which is open as from, a second name. The file becomes read-only when its digest is known to be
// right, so that no program changes its bytes in place by mistake while they are served.
func (m Import) link(ctx context.Context, from *os.File, info fs.FileInfo, temporary string) (Imported, error) {
	linked := temporary + importLink
	if os.Link(m.File, linked) != nil {
		return Imported{}, errNoLink
	}
	done, err := m.readLinked(ctx, from, info, linked)
	if err != nil {
		return Imported{}, errors.Join(err, os.Remove(linked))
	}
	done.mode = info.Mode().Perm()
	if err = privatefs.WriteFile(temporary+importMode, fmt.Appendf(nil, "%o", done.mode)); err == nil {
		err = os.Chmod(linked, done.mode&^0o222)
	}
	if err == nil {
		err = os.Rename(linked, temporary)
	}
	if err != nil {
		return Imported{}, errors.Join(errNoLink, os.Chmod(linked, done.mode), os.Remove(linked))
	}
	return done, nil
}

// readLinked reads the user's file, which is still writable. Its second name must be of the same file.
func (m Import) readLinked(ctx context.Context, from *os.File, info fs.FileInfo, linked string) (Imported, error) {
	if same, err := os.Lstat(linked); err != nil || !os.SameFile(same, info) {
		return Imported{}, errNoLink
	}
	before, err := fileid.Of(from)
	if err != nil {
		return Imported{}, errNoLink
	}
	done, err := m.read(ctx, from, io.Discard, WayLink)
	if err != nil {
		return done, err
	}
	if m.Want != nil && done.SHA256 != *m.Want {
		return done, &Error{Reason: messages.ReasonDigestMismatch, what: "the file does not have the given digest"}
	}
	if after, err := fileid.Of(from); err != nil || !sameContent(before, after) {
		return done, changing()
	}
	return done, nil
}

// read reads from to its end, writes it to, and returns the digest.
func (m Import) read(ctx context.Context, from io.Reader, to io.Writer, way Way) (Imported, error) {
	done, digest := Imported{Way: way}, sha256.New()
	buffer := make([]byte, 1<<20)
	source := contextReader{ctx, from}
	for {
		n, err := source.Read(buffer)
		digest.Write(buffer[:n])
		if _, writing := to.Write(buffer[:n]); writing != nil {
			return done, storing(writing)
		}
		if done.Size += int64(n); m.Progress != nil {
			m.Progress(done.Size)
		}
		switch {
		case errors.Is(err, io.EOF):
			done.SHA256 = [32]byte(digest.Sum(nil))
			return done, nil
		case ctx.Err() != nil:
			return done, context.Cause(ctx)
		case err != nil:
			return done, unreadable(ctx, err)
		}
	}
}

// Name is the digest as it is written in file names and given on command lines.
func (i Imported) Name() string { return hex.EncodeToString(i.SHA256[:]) }
