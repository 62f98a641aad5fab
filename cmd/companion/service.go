package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"companion/adapters/config"
	"companion/adapters/door/controlsock"
	"companion/adapters/privatefs"
	"companion/adapters/servicemanager"
)

// serviceWithin bounds one call of the service manager, in which the daemon may drain.
const serviceWithin = 2 * time.Minute

func (a *app) serviceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "service", Short: "Run the companion as a service of this user",
		Long: "Run the companion as a service of this user: a systemd user unit, a launchd agent or a Windows task. No\n" +
			"administrator is needed.\n\n" +
			"  companion service install      start it now and at each login\n" +
			"  companion service status\n" +
			"  companion service uninstall    models, settings and sign-in stay",
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var linger bool
	install := exits(&cobra.Command{
		Use: "install", Short: "Install and start the service; again after an upgrade or a change",
		Long: "Install and start the service. It is safe to repeat: after an upgrade it restarts the service with the new\n" +
			"binary. On a machine without a login session --linger lets it start at boot (loginctl enable-linger).",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serviceInstall(cmd.Context(), linger) },
	}, exitRunning)
	install.Flags().BoolVar(&linger, "linger", false, "Linux: also start it at boot, without a login")
	status := exits(&cobra.Command{
		Use: "status", Short: "Say whether the service is installed and runs",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serviceStatus(cmd.Context()) },
	}, exitNotRunning)
	a.jsonFlag(status)
	cmd.AddCommand(install, exits(&cobra.Command{
		Use: "uninstall", Short: "Stop and remove the service; models, settings and sign-in stay",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serviceUninstall(cmd.Context()) },
	}), status, exits(&cobra.Command{
		Use: "logs", Short: "Show the service's log, as `companion logs -f`",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			logs := a.logsCommand()
			logs.SetArgs([]string{"-f"})
			return logs.ExecuteContext(cmd.Context())
		},
	}, exitNotRunning))
	return cmd
}

// servicePlan is everything that a service manager needs: a file and the commands. It is data, so that the plans of all
// systems are tested on each.
type servicePlan struct {
	file, text string     // the description; empty: the manager keeps its own
	start      [][]string // after the file is new or changed
	restart    [][]string // instead, where the service is installed already
	stop       [][]string // before the file is removed
	removed    [][]string // after that
	state      []string   // prints the state
	advice     string     // where a command fails
}

// serviceSpec is what a plan is made from.
type serviceSpec struct {
	binary  string
	config  string   // --config; empty: the platform's own
	environ []string // NAME=value, as far as the service needs it
	home    string
	places  string // of the configuration's folders (XDG_CONFIG_HOME)
	uid     int
}

// serviceVariables are the only variables of the installing shell that the service gets: those that move its folders.
// Secrets do not belong into a unit's file; keys of lanes are used by the command line alone.
var serviceVariables = []string{"XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"}

func (a *app) serviceSpec() (serviceSpec, error) {
	binary, err := os.Executable()
	if err != nil {
		return serviceSpec{}, fmt.Errorf("finding this program: %w", err)
	}
	if strings.HasSuffix(binary, " (deleted)") || strings.Contains(binary, string(filepath.Separator)+"go-build") {
		return serviceSpec{}, &failure{code: "not_installed", message: "this program is in a temporary folder: " + binary,
			hint: "install it first: go install ./cmd/companion", exit: exitFailed}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return serviceSpec{}, fmt.Errorf("finding the home folder: %w", err)
	}
	spec := serviceSpec{binary: binary, home: home, places: filepath.Join(home, ".config"), uid: os.Getuid()}
	if a.config != "" {
		if spec.config, err = filepath.Abs(a.config); err != nil {
			return serviceSpec{}, fmt.Errorf("finding the configuration: %w", err)
		}
	}
	for _, name := range serviceVariables {
		value := os.Getenv(name)
		if value == "" {
			continue
		}
		if !filepath.IsAbs(value) || strings.ContainsAny(value, "\n\x00") {
			return serviceSpec{}, usageFailure(name+" is not an absolute path", "unset "+name)
		}
		spec.environ = append(spec.environ, name+"="+value)
		if name == "XDG_CONFIG_HOME" {
			spec.places = value
		}
	}
	return spec, nil
}

func (s serviceSpec) arguments() []string {
	if s.config == "" {
		return []string{s.binary, "run"}
	}
	return []string{s.binary, "--config", s.config, "run"}
}

// planFor is the plan of one system.
func planFor(system string, s serviceSpec) (servicePlan, error) {
	switch system {
	case "linux":
		return systemdPlan(s), nil
	case "darwin":
		return launchdPlan(s), nil
	case "windows":
		return taskPlan(s), nil
	}
	return servicePlan{}, &failure{code: "unsupported", message: "there is no service for " + system, exit: exitFailed, hint: "start `companion run` by the means of this system"}
}

func (a *app) servicePlan() (servicePlan, error) {
	spec, err := a.serviceSpec()
	if err != nil {
		return servicePlan{}, err
	}
	return planFor(runtime.GOOS, spec)
}

func (a *app) serviceInstall(ctx context.Context, linger bool) error {
	plan, err := a.servicePlan()
	if err != nil {
		return err
	}
	s, values, places, err := a.loadValues()
	if err != nil {
		return err
	}
	if err := checkFiles(s, values); err != nil {
		return err
	}
	_, isNew := os.Stat(plan.file)
	if plan.file == "" || errors.Is(isNew, fs.ErrNotExist) {
		// A daemon in a terminal would make the service end with "already running".
		if status, err := controlsock.Dial(places.ControlSocket).Status(ctx); err == nil && plan.file != "" {
			return &failure{code: "already_running", message: fmt.Sprintf("another companion already runs for this user (process %d)", status.PID),
				hint: "end it, then `companion service install` again", exit: exitRunning}
		}
	}
	if linger && runtime.GOOS == "linux" { // first: without a session it is what starts the user's manager
		if err := runSteps(ctx, servicePlan{advice: "ask an administrator to run `loginctl enable-linger` for you"}, [][]string{{"loginctl", "enable-linger"}}); err != nil {
			return err
		}
	}
	steps := plan.start
	if plan.file != "" {
		if isNew == nil {
			steps = plan.restart
		}
		if err := os.MkdirAll(filepath.Dir(plan.file), 0o755); err != nil {
			return fmt.Errorf("making the service's folder: %w", err)
		}
		if err := privatefs.Replace(plan.file, []byte(plan.text)); err != nil {
			return fmt.Errorf("writing the service: %w", err)
		}
	}
	if err := runSteps(ctx, plan, steps); err != nil {
		if isNew != nil && plan.file != "" {
			_ = os.Remove(plan.file) // nothing is left behind
		}
		return err
	}
	a.say("The service is installed and runs. Next: companion status")
	if left := onlyHere(values); len(left) > 0 {
		a.say("It does not have what this shell and this command set: %s. Put that into %s, then `companion service install` again.", strings.Join(left, ", "), places.Config)
	}
	if missing := notConfigured(s); missing != "" {
		a.say("%s: set them in %s, then `companion service install` again.", missing, places.Config)
	}
	return nil
}

// onlyHere lists the keys that the environment or a flag sets for this command, and not for the service.
func onlyHere(values []config.Value) []string {
	var keys []string
	for _, value := range values {
		if value.Source == config.FromEnvironment || value.Source == config.FromFlag {
			keys = append(keys, value.Key)
		}
	}
	return keys
}

func (a *app) serviceUninstall(ctx context.Context) error {
	plan, err := a.servicePlan()
	if err != nil {
		return err
	}
	if plan.file != "" {
		if _, err := os.Stat(plan.file); errors.Is(err, fs.ErrNotExist) {
			a.say("The service is not installed.")
			return nil
		}
	}
	if err := runSteps(ctx, plan, plan.stop); err != nil {
		return err
	}
	if plan.file != "" {
		if err := os.Remove(plan.file); err != nil {
			return fmt.Errorf("removing the service: %w", err)
		}
	}
	if err := runSteps(ctx, plan, plan.removed); err != nil {
		return err
	}
	a.say("The service is stopped and removed. Models, settings and sign-in stay.")
	return nil
}

func (a *app) serviceStatus(ctx context.Context) error {
	plan, err := a.servicePlan()
	if err != nil {
		return err
	}
	installed := plan.file == ""
	if !installed {
		_, err := os.Stat(plan.file)
		installed = err == nil
	}
	text := ""
	if installed {
		out, err := serviceOutput(ctx, plan.state)
		if err != nil && plan.file == "" {
			installed = false
		}
		text = strings.TrimSpace(out)
	}
	runs := installed && serviceRuns(text)
	if a.json {
		err = a.printJSON(map[string]any{"installed": installed, "running": runs, "file": plan.file, "manager": text})
	} else if !installed {
		err = print(a.out, "not installed\n\nnext: companion service install\n")
	} else {
		err = print(a.out, fmt.Sprintf("%s\n\n%s\n\nnext: %s\n", mark(runs, "installed, running", "installed, NOT running"), plain(text),
			mark(runs, "companion status", "companion service install, or companion logs")))
	}
	if err == nil && !runs {
		return silentExit(exitNotRunning)
	}
	return err
}

// serviceRuns reads the managers' own words.
func serviceRuns(state string) bool {
	return strings.Contains(state, "ActiveState=active") || strings.Contains(state, "state = running") || strings.Contains(state, "Running")
}

// runSteps runs commands of the service manager, in order. A step whose first word begins with "-" may fail.
func runSteps(ctx context.Context, plan servicePlan, steps [][]string) error {
	for _, step := range steps {
		mayFail := strings.HasPrefix(step[0], "-")
		step = append([]string{strings.TrimPrefix(step[0], "-")}, step[1:]...)
		if out, err := serviceOutput(ctx, step); err != nil && !mayFail {
			return &failure{code: "service_manager", exit: exitFailed, err: err, hint: plan.advice,
				message: fmt.Sprintf("%s: %s", strings.Join(step, " "), strings.TrimSpace(mark(strings.TrimSpace(out) != "", out, err.Error())))}
		}
	}
	return nil
}

func serviceOutput(ctx context.Context, argv []string) (string, error) {
	return servicemanager.Output(ctx, serviceWithin, argv)
}
