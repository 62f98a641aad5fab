package spawn

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxProgramHeaders is the kernel's own bound on the size of the program headers (load_elf_phdrs in fs/binfmt_elf.c).
const maxProgramHeaders = 64 << 10

// storeDirs are where NixOS and Guix keep their loaders.
var storeDirs = []string{"/nix/store", "/gnu/store"}

var (
	errNotProgram = errors.New("it is not a 64-bit ELF program for this processor")
	errLoader     = errors.New("the loader that it names (PT_INTERP) is not one of the system")
)

// interpreter returns the loader that the program names, with symbolic links resolved, or nothing for a static one. The
// sandbox grants the right to read and execute this file, and the program may be hostile. So the header is read as the
// kernel reads it, which ignores the class and the section headers, and whatever two readers could read differently is
// refused.
func interpreter(executable *os.File) (string, error) {
	name, err := namedLoader(executable)
	if err != nil || name == "" {
		return "", err
	}
	return systemLoader(name)
}

// namedLoader reads the 64-byte header and at most 64 KiB of program headers.
func namedLoader(executable *os.File) (string, error) {
	var raw [64]byte
	if _, err := executable.ReadAt(raw[:], 0); err != nil {
		return "", errNotProgram
	}
	var header elf.Header64
	if _, err := binary.Decode(raw[:], binary.LittleEndian, &header); err != nil {
		return "", errNotProgram
	}
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	kind := elf.Type(header.Type)
	var first elf.Prog64
	size := binary.Size(first)
	if string(raw[:4]) != elf.ELFMAG || elf.Class(raw[elf.EI_CLASS]) != elf.ELFCLASS64 ||
		elf.Data(raw[elf.EI_DATA]) != elf.ELFDATA2LSB || elf.Machine(header.Machine) != machine ||
		kind != elf.ET_EXEC && kind != elf.ET_DYN || int(header.Phentsize) != size ||
		header.Phnum == 0 || int(header.Phnum)*size > maxProgramHeaders || int64(header.Phoff) < 0 {
		return "", errNotProgram
	}
	headers := make([]byte, int(header.Phnum)*size)
	if _, err := executable.ReadAt(headers, int64(header.Phoff)); err != nil {
		return "", errNotProgram
	}
	name := ""
	for chunk := range slices.Chunk(headers, size) {
		var segment elf.Prog64
		if _, err := binary.Decode(chunk, binary.LittleEndian, &segment); err != nil {
			return "", errNotProgram
		}
		if elf.ProgType(segment.Type) != elf.PT_INTERP {
			continue
		}
		if name != "" {
			return "", fmt.Errorf("%w: it names two", errLoader)
		}
		var err error
		if name, err = loaderPath(executable, segment); err != nil {
			return "", err
		}
	}
	return name, nil
}

// loaderPath reads the path, which must be absolute and clean and end with the only zero byte.
func loaderPath(executable *os.File, segment elf.Prog64) (string, error) {
	if segment.Filesz < 2 || segment.Filesz > unix.PathMax || int64(segment.Off) < 0 {
		return "", fmt.Errorf("%w: its name is too short or too long", errLoader)
	}
	raw := make([]byte, segment.Filesz)
	if _, err := executable.ReadAt(raw, int64(segment.Off)); err != nil {
		return "", fmt.Errorf("%w: its name cannot be read", errLoader)
	}
	if bytes.IndexByte(raw, 0) != len(raw)-1 {
		return "", fmt.Errorf("%w: its name does not end with the only zero byte", errLoader)
	}
	name := string(raw[:len(raw)-1])
	if !filepath.IsAbs(name) || filepath.Clean(name) != name {
		return "", fmt.Errorf("%w: its name is not an absolute, clean path", errLoader)
	}
	return name, nil
}

// systemLoader returns the file that the name leads to: a regular file of root's that no other user may write, in a
// library directory of the system, and named like a loader.
func systemLoader(name string) (string, error) {
	base := filepath.Base(name)
	if !strings.HasPrefix(base, "ld") || !strings.Contains(base, ".so") {
		return "", errLoader
	}
	path, err := filepath.EvalSymlinks(name)
	if err != nil {
		return "", fmt.Errorf("%w: there is no such file", errLoader)
	}
	if !slices.ContainsFunc(slices.Concat(libraryDirs, storeDirs), func(dir string) bool { return within(path, dir) }) {
		return "", fmt.Errorf("%w: it lies outside of the system's library directories", errLoader)
	}
	file, err := openRegular(path)
	if err != nil {
		return "", fmt.Errorf("%w: it is not a regular file", errLoader)
	}
	defer func() { _ = file.Close() }()
	var stat unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &stat); err != nil || stat.Uid != 0 || stat.Mode&0o022 != 0 {
		return "", fmt.Errorf("%w: root does not own it, or other users may write it", errLoader)
	}
	return path, nil
}

// within reports whether the resolved path lies below the directory, or is it.
func within(path, dir string) bool {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false
	}
	rest, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rest)
}
