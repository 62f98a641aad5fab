package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"companion/adapters/artifact"
	"companion/adapters/gguf"
	"companion/adapters/runtime/store"
	"companion/messages"
)

// findParts finds the other parts of a split model next to the first (M17).
func (d *addition) findParts(part, parts int) error {
	all := fmt.Sprintf("it is part %d of %d of a model", part, parts)
	switch {
	case d.fetched || part != 1:
		return d.unfit(all + ": put all parts into one folder, as they were named, and add the first")
	case parts > artifact.MaxParts:
		return d.unfit(fmt.Sprintf("%s, and %d parts are accepted at most: merge it with llama-gguf-split --merge", all, artifact.MaxParts))
	}
	files, ok := gguf.PartFiles(d.file, parts)
	if !ok {
		return d.unfit(fmt.Sprintf("%s, and its name does not end in -00001-of-%05d.gguf, so that the others cannot be found", all, parts))
	}
	for i, file := range files {
		name := filepath.Base(file)
		info, err := os.Lstat(file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return d.unfit(all + ", and " + name + " is not in its folder: download that file too")
		case err != nil:
			return d.unfit(fmt.Sprintf("%s cannot be looked at: %v", name, err))
		case !info.Mode().IsRegular():
			return d.unfit(name + " is not a regular file")
		}
		h, err := readHeader(file)
		if err != nil {
			return d.unfit(name + ": " + err.Error())
		}
		if no, of := h.Part(); no != i+2 || of != parts {
			return d.unfit(fmt.Sprintf("%s is part %d of %d, want part %d of %d: download it again", name, no, of, i+2, parts))
		}
	}
	d.parts = files
	return nil
}

// undo takes back the imports of this command that the catalogue does not name.
func (d *addition) undo() error {
	now, err := d.own.Load()
	if err != nil {
		return nil //nolint:nilerr // it is not known what the catalogue names
	}
	var failed error
	for _, i := range d.imported {
		if !slices.Contains(now.FileDigests(), i.SHA256) {
			failed = errors.Join(failed, i.Undo())
		}
	}
	return failed
}

// bringParts puts the other parts into the store, and names them in the target.
func (d *addition) bringParts(ctx context.Context, imported *store.Imported) error {
	for _, file := range d.parts {
		part, err := d.bringFile(ctx, file, nil)
		if err != nil {
			return errors.Join(err, d.undo())
		}
		imported.Size += part.Size
		d.target.Custom.Parts = append(d.target.Custom.Parts, messages.TargetPart{
			Name: notInOwn.ReplaceAllString(filepath.Base(file), "-"), Length: part.Size, SHA256: hex.EncodeToString(part.SHA256[:]),
		})
	}
	return nil
}
