//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"companion/e2e/emulate/plan"
)

const (
	cgroupRoot = "/sys/fs/cgroup"
	userID     = 1000
)

// groups are the control groups in which suites run.
type groups struct{ service, user string }

// makeGroups makes the groups that systemd makes: one for a system service, which owns nothing, and one for a user's
// service, below a group that is delegated to the user.
func makeGroups() (groups, error) {
	g := groups{
		service: filepath.Join(cgroupRoot, "system.slice", "companion.service"),
		user:    filepath.Join(cgroupRoot, "user.slice", "user@1000.service", "app.slice", "companion.service"),
	}
	if err := errors.Join(os.MkdirAll(g.service, 0o755), os.MkdirAll(g.user, 0o755)); err != nil {
		return g, fmt.Errorf("making the control groups: %w", err)
	}
	app := filepath.Dir(g.user)
	manager := filepath.Dir(app)
	for _, dir := range []string{cgroupRoot, filepath.Dir(manager), manager, app} {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory +pids"), 0); err != nil {
			return g, fmt.Errorf("enabling the controllers: %w", err)
		}
	}
	var errs []error
	for _, dir := range []string{manager, app, g.user} {
		for _, name := range []string{"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} {
			errs = append(errs, os.Chown(filepath.Join(dir, name), userID, userID))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return g, fmt.Errorf("delegating the user's control group: %w", err)
	}
	return g, nil
}

// runSuite runs the test binary and returns its status. As process 1 it also reaps orphaned processes, as tests expect of a
// system.
func runSuite(suite plan.Suite, g groups) (int, error) {
	path := g.service
	attributes := &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true}
	if suite.User {
		path = g.user
		attributes.Credential = &syscall.Credential{Uid: userID, Gid: userID}
	}
	group, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = group.Close() }()
	attributes.CgroupFD = int(group.Fd())
	process, err := os.StartProcess(suite.Program, append([]string{suite.Program}, suite.Args...), &os.ProcAttr{
		Dir: "/tmp", Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Sys: attributes,
	})
	if err != nil {
		return 0, err
	}
	for {
		var status unix.WaitStatus
		switch id, err := unix.Wait4(-1, &status, 0, nil); {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case id == process.Pid && status.Signaled():
			return 128 + int(status.Signal()), nil
		case id == process.Pid:
			return status.ExitStatus(), nil
		}
	}
}
