// Package store keeps artifacts on disk (contract M6–M9, M12, T17). Its folders, all of mode 0700:
//
//	models/<sha256>.gguf     verified models, read-only; the identity of each is in <sha256>.json
//	links/<sha256>.gguf      likewise, but the user's own file under a second name (M16)
//	archives/<sha256>.bin    verified runtime archives that are not unpacked yet, likewise
//	runtimes/<sha256>/       unpacked runtimes, read-only
//	partial/<sha256>.part    partial downloads; the source of each is in <sha256>.json
//	pin.key                  authenticates the records of verified files
//
// All are on one file system, so that a rename moves a verified file into place. A file gets its final name only after its
// digest was verified. Names are digests, so a new version never overwrites an older one. A file or folder that is a link, or
// that other users own or may enter, is refused and not changed.
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
	"strings"

	"companion/adapters/privatefs"
	"companion/adapters/runtime/archive"
	"companion/adapters/runtime/fileid"
	"companion/messages"
)

// Error says why an artifact cannot be read from disk or written to it. Its text contains no path of a model or
// binary, and no digest.
type Error struct {
	Reason messages.Reason
	what   string
	cause  error
}

func (e *Error) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("store: %s: %v (%s)", e.what, e.cause, e.Reason)
	}
	return fmt.Sprintf("store: %s (%s)", e.what, e.Reason)
}

func (e *Error) Unwrap() error { return e.cause }

// ErrNotHere means that an artifact is not on disk, which is a normal result.
var ErrNotHere = errors.New("store: not here")

// Store is the part of the data folder that holds artifacts. One process may use it at a time; calls about different
// artifacts may run concurrently.
type Store struct {
	dir string
	key []byte // authenticates pins
	budget
	// NotRecorded is told why the mode or the record of a verified file could not be written. Set it before the store is
	// used concurrently; it may be called concurrently.
	NotRecorded func(error)
	// testOnlyStep runs after each change of the disk; a test kills the process in it.
	testOnlyStep func()
}

// linksFolder holds models that are hard links to files of the user.
const linksFolder = "links"

// Open makes or checks the folders under dir. The error for a folder that is not private says what was found and
// what is required (T17).
func Open(dir string) (*Store, error) {
	for _, sub := range []string{"", "models", "links", "archives", "runtimes", "partial"} {
		if err := privatefs.EnsureDir(filepath.Join(dir, sub)); err != nil {
			return nil, fmt.Errorf("opening the artifact store: %w", err)
		}
	}
	key, err := pinKey(filepath.Join(dir, pinKeyFile))
	if err != nil {
		return nil, fmt.Errorf("opening the artifact store: %w", err)
	}
	s := &Store{dir: dir, key: key, NotRecorded: func(error) {}, testOnlyStep: func() {}}
	return s, s.tidy()
}

// tidy removes the remains of a crash: temporary files of privatefs.WriteFile and of unpacking, whose names begin with a
// dot; records without their file; and archives that have been unpacked.
func (s *Store) tidy() error {
	privatefs.RemoveUnfinished(s.dir, pinKeyFile)
	for _, sub := range []string{"models", "links", "archives", "runtimes", "partial"} {
		entries, err := os.ReadDir(filepath.Join(s.dir, sub))
		if err != nil {
			return fmt.Errorf("tidying the artifact store: %w", bare(err))
		}
		there := map[string]bool{}
		for _, e := range entries {
			there[e.Name()] = true
		}
		for name := range there {
			digest, extension, _ := strings.Cut(name, ".")
			orphan := extension == "json" && !there[digest+".gguf"] && !there[digest+".bin"] && !there[digest+".part"]
			unpacked := false
			if sub == "archives" {
				_, err := os.Lstat(filepath.Join(s.dir, "runtimes", digest))
				unpacked = err == nil
			}
			if !strings.HasPrefix(name, ".") && !orphan && !unpacked {
				continue
			}
			if err := archive.Remove(filepath.Join(s.dir, sub, name)); err != nil {
				return fmt.Errorf("tidying the artifact store: %w", err)
			}
		}
	}
	return nil
}

func (s *Store) final(a messages.Artifact) string {
	if a.Kind == messages.KindModel {
		return filepath.Join(s.dir, "models", hex.EncodeToString(a.SHA256[:])+".gguf")
	}
	return filepath.Join(s.dir, "archives", hex.EncodeToString(a.SHA256[:])+".bin")
}

// linked returns the path of a model that is a hard link to the user's own file.
func (s *Store) linked(a messages.Artifact) string {
	return filepath.Join(s.dir, linksFolder, hex.EncodeToString(a.SHA256[:])+".gguf")
}

// kept returns where a is: the linked file if there is only that, else the final name.
func (s *Store) kept(a messages.Artifact) string {
	if a.Kind == messages.KindModel && a.Own {
		if _, err := os.Lstat(s.final(a)); errors.Is(err, fs.ErrNotExist) {
			if _, err := os.Lstat(s.linked(a)); err == nil {
				return s.linked(a)
			}
		}
	}
	return s.final(a)
}

func (s *Store) runtimeDir(a messages.Artifact) string {
	return filepath.Join(s.dir, "runtimes", hex.EncodeToString(a.SHA256[:]))
}

func (s *Store) partial(a messages.Artifact) string {
	return filepath.Join(s.dir, "partial", hex.EncodeToString(a.SHA256[:])+".part")
}

// record returns the path of the JSON file that belongs to a file of the store.
func record(path string) string { return strings.TrimSuffix(path, filepath.Ext(path)) + ".json" }

// Model returns the verified model. A file whose identity is the pinned one is not read again, unless rehash is set
// (M9). A file of another size or digest is deleted (M6). Errors: ErrNotHere, *Error, the cause of ctx's end.
func (s *Store) Model(ctx context.Context, a messages.Artifact, rehash bool) (messages.VerifiedModel, error) {
	f, id, err := s.verified(ctx, a, rehash)
	if err != nil {
		return messages.VerifiedModel{}, err
	}
	defer f.Close()
	return messages.VerifiedModel{
		Name: a.Name, Version: a.Version, Path: f.Name(), Identity: id, SHA256: a.SHA256, Embedding: a.Embedding, Own: a.Own,
	}, nil
}

// Executable returns an *Error with not_executable if no program can be started from the store, because its file
// system is mounted noexec.
func (s *Store) Executable() error {
	if noexec(filepath.Join(s.dir, "runtimes")) {
		return &Error{Reason: messages.ReasonNotExecutable, what: "the file system of the data folder is mounted noexec"}
	}
	return nil
}

// Runtime returns the unpacked runtime: complete, with the listed sizes, modes and links, and with rehash also the
// listed content. Each spawn hashes what it runs (M10). A folder that differs is deleted. Errors as for Model.
func (s *Store) Runtime(ctx context.Context, a messages.Artifact, rehash bool) (messages.VerifiedRuntime, error) {
	err := archive.Check(ctx, s.runtimeDir(a), a.Files, rehash)
	var differs *archive.Error
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return messages.VerifiedRuntime{}, ErrNotHere
	case errors.As(err, &differs):
		return messages.VerifiedRuntime{}, &Error{differs.Reason, "the runtime's folder", errors.Join(err, archive.Remove(s.runtimeDir(a)))}
	case err != nil:
		return messages.VerifiedRuntime{}, unreadable(ctx, err)
	}
	return messages.VerifiedRuntime{
		Name: a.Name, Version: a.Version, SHA256: a.SHA256, Dir: s.runtimeDir(a), Executable: a.Executable, Files: a.Files, Pinned: true,
		Own: a.Own,
	}, nil
}

// Archived returns nil if the runtime's archive is on disk and verified, so that Unpack is the next step.
func (s *Store) Archived(ctx context.Context, a messages.Artifact) error {
	f, _, err := s.verified(ctx, a, false)
	if err == nil {
		_ = f.Close()
	}
	return err
}

// Unpack unpacks the verified archive and deletes it. The folder gets its final name only when it is complete.
// Errors as for Model; an archive that differs from the manifest's list is deleted.
func (s *Store) Unpack(ctx context.Context, a messages.Artifact) (messages.VerifiedRuntime, error) {
	none := messages.VerifiedRuntime{}
	src, _, err := s.verified(ctx, a, false)
	if err != nil {
		return none, err
	}
	defer src.Close()
	if err := s.reserve(a); err != nil {
		return none, err
	}
	defer s.release(a)
	var need int64
	for _, f := range a.Files {
		need += f.Size + 4096
	}
	if err := s.space(need); err != nil {
		return none, err
	}
	dir := s.runtimeDir(a)
	temporary := filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir))
	if err := errors.Join(archive.Remove(temporary), os.Mkdir(temporary, 0o700)); err != nil {
		return none, storing(err)
	}
	s.testOnlyStep()
	err = archive.Unpack(ctx, src, a.Format, a.Files, temporary)
	s.testOnlyStep()
	if err == nil {
		err = os.Rename(temporary, dir)
		s.testOnlyStep()
	}
	if err != nil {
		err = errors.Join(err, archive.Remove(temporary))
		if hostile := (*archive.Error)(nil); errors.As(err, &hostile) {
			return none, &Error{hostile.Reason, "the runtime's archive", errors.Join(err, remove(s.final(a)))}
		}
		if ctx.Err() != nil {
			return none, context.Cause(ctx)
		}
		return none, storing(err)
	}
	if err := errors.Join(privatefs.SyncDir(filepath.Dir(dir)), remove(s.final(a))); err != nil {
		return none, storing(err)
	}
	s.testOnlyStep()
	return s.Runtime(ctx, a, false)
}

// Held reports which part of the artifact is on disk, without reading it.
func (s *Store) Held(ctx context.Context, a messages.Artifact) messages.HeldArtifact {
	h := messages.HeldArtifact{Name: a.Name, Version: a.Version}
	if len(a.Parts) > 0 {
		return s.heldParts(ctx, a)
	}
	if a.Kind == messages.KindRuntime {
		h.Here = archive.Check(ctx, s.runtimeDir(a), a.Files, false) == nil
		h.Verified = h.Here
	} else if f, id, err := s.open(s.kept(a)); err == nil {
		_ = f.Close()
		h.Here = true
		h.Verified = s.pinned(f.Name()) == id && id.Size == a.Size
	}
	if info, err := os.Lstat(s.partial(a)); err == nil && info.Mode().IsRegular() {
		h.PartialBytes = s.partialBytes(a, info.Size())
	}
	return h
}

// verified opens the file of a, and returns it with its identity if it is the right one.
func (s *Store) verified(ctx context.Context, a messages.Artifact, rehash bool) (*os.File, messages.FileIdentity, error) {
	path := s.kept(a)
	f, id, err := s.open(path)
	if err != nil {
		return nil, id, err
	}
	if !rehash && id.Size == a.Size && s.pinned(path) == id {
		return f, id, nil
	}
	if id, err = s.hash(ctx, f, a, id); err != nil {
		_ = f.Close()
		if wrong := wrongBytes(err); wrong != nil {
			wrong.cause = remove(path)
		}
		return nil, id, err
	}
	id, err = s.settle(f, path, id)
	if err != nil {
		_ = f.Close()
		return nil, id, err
	}
	return f, id, nil
}

// open opens a file of the store for reading. The links folder has other rules: see openLinked.
func (s *Store) open(path string) (*os.File, messages.FileIdentity, error) {
	if filepath.Base(filepath.Dir(path)) == linksFolder {
		return openLinked(path)
	}
	return openPrivate(path, os.O_RDONLY)
}

// hash compares the file with the manifest and returns the identity that the file had meanwhile. Only size_mismatch and
// digest_mismatch are about the bytes. A file whose name, mode or links change while it is read is read once more; one that
// keeps changing, or is written to, gives transfer_failed: it may be right the next time.
func (s *Store) hash(ctx context.Context, f *os.File, a messages.Artifact, before messages.FileIdentity) (messages.FileIdentity, error) {
	if before.Size != a.Size {
		return before, &Error{Reason: messages.ReasonSizeMismatch, what: "the file has another size than the manifest says"}
	}
	for range 2 {
		digest := sha256.New()
		if _, err := io.Copy(digest, contextReader{ctx, io.NewSectionReader(f, 0, before.Size)}); err != nil {
			return before, unreadable(ctx, err)
		}
		after, err := fileid.Of(f)
		switch {
		case err != nil:
			return before, unreadable(ctx, err)
		case !sameContent(before, after):
			return before, changing()
		case after == before && subtle.ConstantTimeCompare(digest.Sum(nil), a.SHA256[:]) != 1:
			return before, &Error{Reason: messages.ReasonDigestMismatch, what: "the file has other content than the manifest says"}
		case after == before:
			return before, nil
		}
		before = after
	}
	return before, changing()
}

// sameContent reports whether nothing was written to a file between two looks at it. A new name, mode or link changes only the
// time of the change.
func sameContent(before, after messages.FileIdentity) bool {
	after.ChangeNano = before.ChangeNano
	return before == after
}

// wrongBytes returns err if it says that the bytes of a file are wrong, so that the file is deleted; nil for every other error.
func wrongBytes(err error) *Error {
	var wrong *Error
	if errors.As(err, &wrong) && (wrong.Reason == messages.ReasonDigestMismatch || wrong.Reason == messages.ReasonSizeMismatch) {
		return wrong
	}
	return nil
}

// settle makes a file that has its final name and was verified with the identity hashed read-only, and pins its identity (M9).
// The identity is taken last, because renaming and changing the mode alter its time of change, and nothing else: a file that
// was written to since it was read is not pinned. A mode or a pin that cannot be written, for want of space or on a read-only
// file system, does not make right bytes wrong: it is reported to NotRecorded, and the file is read again the next time.
func (s *Store) settle(f *os.File, path string, hashed messages.FileIdentity) (messages.FileIdentity, error) {
	var id messages.FileIdentity
	info, err := f.Stat()
	mode := fs.FileMode(0o400)
	if err == nil && filepath.Base(filepath.Dir(path)) == linksFolder {
		mode = info.Mode().Perm() &^ 0o222 // who may read the user's own file is for the user to say
	}
	if err == nil && info.Mode().Perm() != mode {
		if failed := f.Chmod(mode); failed != nil {
			s.NotRecorded(storing(failed))
		}
		s.testOnlyStep()
	}
	if err == nil {
		id, err = fileid.Of(f)
	}
	if err == nil && !sameContent(hashed, id) {
		err = changing()
	}
	if err != nil {
		return id, storing(err)
	}
	if failed := s.pin(path, id); failed != nil {
		s.NotRecorded(storing(failed))
	}
	s.testOnlyStep()
	return id, nil
}

// remove deletes a file and its record, the record first: a file without a record is read again.
func remove(path string) error {
	for _, p := range []string{record(path), path} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return storing(err)
		}
	}
	return nil
}

type contextReader struct {
	ctx context.Context
	src io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.src.Read(p)
}
