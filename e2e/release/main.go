// Command release makes the archives that are published: stripped and position-independent binaries for each platform
// with the man pages, a CycloneDX bill of materials for each, and the checksums of all. It builds from clean clones of the
// commit, twice, in two places and with two empty build caches, and fails if a byte differs. Nothing is signed here.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// platforms are those that are published. On linux/amd64 cgo gives the use of GPU memory (NVML); the others are built
// without a C compiler for the target.
var platforms = []platform{
	{"linux", "amd64", true}, {"linux", "arm64", false}, {"darwin", "arm64", false}, {"windows", "amd64", false},
}

type platform struct {
	os, arch string
	cgo      bool
}

func (p platform) String() string { return p.os + "/" + p.arch }

func main() {
	out := flag.String("out", "dist", "new `FOLDER` for the archives")
	version := flag.String("version", "", "`VERSION` of the release; empty: 0.0.0 and the commit")
	only := flag.String("only", "", "build this `OS/ARCH` alone")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := release(ctx, *out, *version, *only); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// source is the commit that is released.
type source struct {
	root    string // of the working tree
	commit  string
	at      time.Time // of the commit: the time of every file in the archives
	version string
}

func release(ctx context.Context, out, version, only string) error {
	wanted := slices.DeleteFunc(slices.Clone(platforms), func(p platform) bool { return only != "" && p.String() != only })
	if len(wanted) == 0 {
		return fmt.Errorf("%q is not published; accepted: %v", only, platforms)
	}
	src, err := open(ctx, version)
	if err != nil {
		return err
	}
	if err := os.Mkdir(out, 0o755); err != nil {
		return fmt.Errorf("making the folder of the release: %w", err)
	}
	// Of different lengths, so that a path that gets into a binary changes more than its bytes.
	first, second := filepath.Join(out, ".first"), filepath.Join(out, ".the-second-build")
	defer os.RemoveAll(first)
	defer os.RemoveAll(second)
	var sums []string
	for _, dir := range []string{first, second} {
		files, err := src.build(ctx, dir, wanted)
		if err != nil {
			return err
		}
		list, err := checksums(files)
		if err != nil {
			return err
		}
		sums = append(sums, list)
	}
	if err := same(sums[0], sums[1]); err != nil {
		return err
	}
	if err := publish(filepath.Join(first, "files"), out, sums[0]); err != nil {
		return err
	}
	fmt.Printf("%s\nTwo builds of %s gave the same bytes. The files are in %s.\n", strings.TrimSpace(sums[0]), src.commit[:12], out)
	return nil
}

// same compares the checksums of two builds.
func same(first, second string) error {
	if first == second {
		return nil
	}
	var differ []string
	for line := range strings.Lines(first) {
		if !strings.Contains(second, line) {
			differ = append(differ, strings.TrimSpace(line[strings.LastIndex(line, " "):]))
		}
	}
	return fmt.Errorf("two builds of one commit differ: %s", strings.Join(differ, ", "))
}

// publish moves the files of the first build into the folder of the release, and writes their checksums.
func publish(from, to, sums string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return fmt.Errorf("listing the files: %w", err)
	}
	for _, entry := range entries {
		if err := os.Rename(filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name())); err != nil {
			return fmt.Errorf("publishing a file: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(to, "SHA256SUMS"), []byte(sums), 0o644); err != nil {
		return fmt.Errorf("writing the checksums: %w", err)
	}
	return nil
}
