package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
)

// writeAdditions writes the files that testdata/add.txtar adds: a GGUF header, a part of a split model, and archives with a
// program for this machine, for another one, and without one.
func writeAdditions(dir string) error {
	program := make([]byte, 600)
	copy(program, "\x7fELF\x02\x01\x01")
	program[18] = map[string]byte{"amd64": 62, "arm64": 183}[runtime.GOARCH]
	mac := make([]byte, 600)
	copy(mac, "\xcf\xfa\xed\xfe\x0c\x00\x00\x01")
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "tiny.gguf"), header("llama", nil), 0o600),
		os.WriteFile(filepath.Join(dir, "other.gguf"), header("qwen2", nil), 0o600),
		os.WriteFile(filepath.Join(dir, "part.gguf"), header("llama", map[string]uint32{"split.no": 1, "split.count": 3}), 0o600),
		writePart(dir, "gap-00001-of-00003.gguf", 0, 3), writePart(dir, "gap-00002-of-00003.gguf", 1, 3),
		writePart(dir, "mixed-00001-of-00002.gguf", 0, 2), writePart(dir, "mixed-00002-of-00002.gguf", 2, 3),
		writePart(dir, "whole-00001-of-00002.gguf", 0, 2), writePart(dir, "whole-00002-of-00002.gguf", 1, 2),
		writePart(dir, "first.gguf", 0, 2),
		os.WriteFile(filepath.Join(dir, "mmproj.gguf"), header("clip", nil), 0o600),
		writeArchive(filepath.Join(dir, "llama.tar.gz"), "bin/llama-server", program),
		writeArchive(filepath.Join(dir, "mac.tar.gz"), "bin/llama-server", mac),
		writeArchive(filepath.Join(dir, "none.tar.gz"), "bin/llama-cli", program),
		writeArchive(filepath.Join(dir, "out.tar.gz"), "../llama-server", program),
	)
}

// writePart writes a part of a split model.
func writePart(dir, name string, no, of uint32) error {
	return os.WriteFile(filepath.Join(dir, name), header("llama", map[string]uint32{"split.no": no, "split.count": of}), 0o600)
}

// header returns the header of a GGUF file of one tensor.
func header(architecture string, numbers map[string]uint32) []byte {
	var b bytes.Buffer
	text := func(s string) {
		_ = binary.Write(&b, binary.LittleEndian, uint64(len(s)))
		b.WriteString(s)
	}
	b.WriteString("GGUF")
	_ = binary.Write(&b, binary.LittleEndian, []any{uint32(3)}[0])
	_ = binary.Write(&b, binary.LittleEndian, []uint64{1, uint64(len(numbers) + 1)})
	text("general.architecture")
	_ = binary.Write(&b, binary.LittleEndian, uint32(8))
	text(architecture)
	for key, n := range numbers {
		text(key)
		_ = binary.Write(&b, binary.LittleEndian, []uint32{4, n})
	}
	return b.Bytes()
}

func writeArchive(path, name string, content []byte) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	compressed := gzip.NewWriter(file)
	archive := tar.NewWriter(compressed)
	err = archive.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg})
	_, writing := archive.Write(content)
	return errors.Join(err, writing, archive.Close(), compressed.Close(), file.Close())
}
