package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// fetch puts the kernel and a static busybox of the machine into dir, unless they exist: tests need a shell and a program
// that sleeps.
func fetch(ctx context.Context, cache, dir string, m machine) error {
	if _, err := os.Stat(filepath.Join(dir, "busybox")); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	apt, err := newApt(ctx, filepath.Join(cache, "apt"))
	if err != nil {
		return fmt.Errorf("preparing apt: %w", err)
	}
	kernel, err := apt.kernel(ctx, m)
	if err != nil {
		return err
	}
	for _, part := range []struct{ pkg, pattern, name string }{
		{kernel, `^boot/vmlinuz-`, "vmlinuz"},
		{"busybox-static", `^(usr/)?bin/busybox$`, "busybox"},
	} {
		if err := apt.extract(ctx, m, part.pkg, part.pattern, filepath.Join(dir, part.name)); err != nil {
			return fmt.Errorf("fetching %s: %w", part.pkg, err)
		}
	}
	return nil
}

// apt runs apt with separate folders, so that this machine's suite and architectures do not change. It uses the machine's
// keys and proxies.
type apt struct{ dir string }

func newApt(ctx context.Context, dir string) (apt, error) {
	a := apt{dir}
	config := fmt.Sprintf(`Dir::State "%[1]s/state"; Dir::State::status "%[1]s/status"; Dir::Cache "%[1]s/cache";
Dir::Etc::sourcelist "%[1]s/sources.list"; Dir::Etc::sourceparts "%[1]s/none"; Dir::Etc::preferences "%[1]s/none.pref"; Dir::Etc::preferencesparts "%[1]s/none";
APT::Architectures { "amd64"; "arm64"; }; APT::Sandbox::User ""; Acquire::Languages "none"; Acquire::Retries "3";
`, dir)
	// The archive is the one of this machine's own packages.
	archive, err := output(ctx, nil, "apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian", "Label: Debian")
	if err != nil {
		return a, err
	}
	archive, _, _ = strings.Cut(archive, "\n")
	if archive == "" {
		return a, errors.New("this machine's apt knows no Debian archive; try `apt-get update`")
	}
	var sources strings.Builder
	seen := map[string]bool{}
	for _, m := range machines {
		if !seen[m.suite] {
			fmt.Fprintf(&sources, "deb %s %s main\n", archive, m.suite)
		}
		seen[m.suite] = true
	}
	var errs []error
	for _, name := range []string{"state/lists/partial", "cache/archives/partial", "none"} {
		errs = append(errs, os.MkdirAll(filepath.Join(dir, name), 0o755))
	}
	for name, content := range map[string]string{"apt.conf": config, "status": "", "sources.list": sources.String()} {
		errs = append(errs, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	if err := errors.Join(errs...); err != nil {
		return a, err
	}
	_, err = a.run(ctx, "apt-get", "update", "-qq")
	return a, err
}

func (a apt) run(ctx context.Context, name string, args ...string) (string, error) {
	return output(ctx, []string{"APT_CONFIG=" + filepath.Join(a.dir, "apt.conf")}, name, args...)
}

// kernel returns the package with the suite's newest kernel, which is the one that linux-image depends on.
func (a apt) kernel(ctx context.Context, m machine) (string, error) {
	said, err := a.run(ctx, "apt-cache", "-o", "APT::Default-Release="+m.suite, "show", "--no-all-versions", "linux-image-"+m.arch+":"+m.arch)
	if err != nil {
		return "", err
	}
	found := regexp.MustCompile(`(?m)^Depends:.*\b(linux-image-[0-9][^ ,]*)`).FindStringSubmatch(said)
	if found == nil {
		return "", fmt.Errorf("linux-image-%s of %s needs no kernel:\n%s", m.arch, m.suite, said)
	}
	return found[1], nil
}

// extract downloads a package and writes the only file that matches to target.
func (a apt) extract(ctx context.Context, m machine, pkg, pattern, target string) (err error) {
	folder, err := os.MkdirTemp(a.dir, "package-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	cmd := exec.CommandContext(ctx, "apt-get", "download", "-qq", pkg+":"+m.arch+"/"+m.suite)
	cmd.Dir, cmd.Env = folder, append(os.Environ(), "APT_CONFIG="+filepath.Join(a.dir, "apt.conf"))
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get: %w\n%s", err, said)
	}
	packages, err := filepath.Glob(filepath.Join(folder, "*.deb"))
	if err != nil {
		return err
	}
	if len(packages) != 1 {
		return fmt.Errorf("downloaded %d packages of %s, want 1", len(packages), pkg)
	}
	unpack := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", packages[0])
	files, err := unpack.StdoutPipe()
	if err != nil {
		return err
	}
	if err := unpack.Start(); err != nil {
		return err
	}
	// It is killed as soon as the file is found, which is not the last.
	defer func() { _ = unpack.Process.Kill(); _ = unpack.Wait() }()
	return pick(tar.NewReader(files), regexp.MustCompile(pattern), target)
}

func pick(files *tar.Reader, pattern *regexp.Regexp, target string) error {
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return fs.ErrNotExist
		} else if err != nil {
			return err
		}
		if header.Typeflag != tar.TypeReg || !pattern.MatchString(path.Clean(header.Name)) {
			continue
		}
		data, err := io.ReadAll(files)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o755)
	}
}
