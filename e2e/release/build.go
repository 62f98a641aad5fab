package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// open reads the commit of the working tree. What is not committed is not released.
func open(ctx context.Context, version string) (source, error) {
	root, err := output(ctx, "", nil, "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return source{}, err
	}
	said, err := output(ctx, root, nil, "git", "log", "-1", "--format=%H %ct")
	if err != nil {
		return source{}, err
	}
	commit, seconds, _ := strings.Cut(said, " ")
	at, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return source{}, fmt.Errorf("reading the time of the commit: %w", err)
	}
	if version == "" {
		version = "0.0.0-" + commit[:12]
	}
	return source{root: root, commit: commit, at: time.Unix(at, 0).UTC(), version: version}, nil
}

// build makes the archives and bills of materials in dir/files, from a clone in dir and with a build cache of its own.
func (s source) build(ctx context.Context, dir string, wanted []platform) ([]string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("finding the folder of the build: %w", err)
	}
	tree, files := filepath.Join(dir, "source"), filepath.Join(dir, "files")
	if err := os.MkdirAll(files, 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of the build: %w", err)
	}
	if _, err := output(ctx, s.root, nil, "git", "clone", "--quiet", "--shared", s.root, tree); err != nil {
		return nil, err
	}
	if _, err := output(ctx, tree, nil, "git", "checkout", "--quiet", "--detach", s.commit); err != nil {
		return nil, err
	}
	cache := []string{"GOCACHE=" + filepath.Join(dir, "cache"), "GOFLAGS=", "GOWORK=off"}
	pages := filepath.Join(dir, "man")
	if _, err := output(ctx, tree, cache, "go", "run", "./cmd/companion", "man", pages); err != nil {
		return nil, err
	}
	var made []string
	for _, p := range wanted {
		began := time.Now()
		program, err := s.compile(ctx, tree, dir, p, cache)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("companion_%s_%s_%s", s.version, p.os, p.arch)
		archive, err := s.pack(filepath.Join(files, name), name, program, tree, pages, p)
		if err != nil {
			return nil, err
		}
		bill := filepath.Join(files, name+".cdx.json")
		if err := s.writeBill(bill, program, archive); err != nil {
			return nil, err
		}
		made = append(made, archive, bill)
		fmt.Printf("%-14s %s in %v\n", p, filepath.Base(archive), time.Since(began).Round(time.Second))
	}
	return made, nil
}

// compile builds the program of one platform.
func (s source) compile(ctx context.Context, tree, dir string, p platform, env []string) (string, error) {
	program := filepath.Join(dir, "bin", p.os+"-"+p.arch, "companion")
	if p.os == "windows" {
		program += ".exe"
	}
	env = append(slices.Clone(env), "GOOS="+p.os, "GOARCH="+p.arch, "CGO_ENABLED="+map[bool]string{true: "1", false: "0"}[p.cgo])
	_, err := output(ctx, tree, env, "go", "build", "-trimpath", "-buildmode=pie", "-ldflags=-s -w -X main.version="+s.version,
		"-o", program, "./cmd/companion")
	return program, err
}

// checksums lists files as sha256sum does, by name.
func checksums(files []string) (string, error) {
	var lines []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("reading a file for its checksum: %w", err)
		}
		lines = append(lines, fmt.Sprintf("%x  %s\n", sha256.Sum256(data), filepath.Base(file)))
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[66:], b[66:]) })
	return strings.Join(lines, ""), nil
}

// output runs a command and returns what it prints, without the line end.
func output(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(stdout.String()), nil
}
