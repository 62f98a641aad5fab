package main

import (
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// odd is a specification whose every text holds what a unit's file, a property list or a command line could take for
// its own syntax.
func odd() serviceSpec {
	return serviceSpec{binary: `/home/a b/%h/$HOME/"x"\y/companion`, config: `/home/a b/$<&>.toml`, home: "/home/a b",
		places: "/home/a b/.config", environ: []string{"XDG_DATA_HOME=/data of %u$b"}, uid: 501}
}

// The unit says what the daemon relies on: readiness, watchdog, restart with the exceptions, and no specifier of the
// user's own text.
func TestSystemdPlan(t *testing.T) {
	plan := systemdPlan(odd())
	for _, want := range []string{
		"Type=notify\n", "WatchdogSec=", "Restart=on-failure\n", "RestartPreventExitStatus=2 7 8\n", "KillMode=mixed\n",
		"NoNewPrivileges=yes\n", "ExecStartPost=-systemctl --user reset-failed companion.service\n", "Environment=GOTRACEBACK=crash\n", "LimitCORE=0\n", "UMask=0077\n", "WantedBy=default.target\n",
		`ExecStart="/home/a b/%%h/$HOME/\"x\"\\y/companion" "--config" "/home/a b/$$<&>.toml" "run"` + "\n",
		`Environment="XDG_DATA_HOME=/data of %%u$b"` + "\n",
	} {
		if !strings.Contains(plan.text, want) {
			t.Errorf("got no %q, want it in:\n%s", want, plan.text)
		}
	}
	if plan.file != "/home/a b/.config/systemd/user/companion.service" {
		t.Errorf("got the file %s, want companion.service in the user's folder of systemd", plan.file)
	}
}

// The property list is well-formed XML that holds the texts unchanged.
func TestLaunchdPlan(t *testing.T) {
	plan := launchdPlan(odd())
	decoder := xml.NewDecoder(strings.NewReader(plan.text))
	var texts []string
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, plan.text)
		}
		if data, ok := token.(xml.CharData); ok {
			texts = append(texts, string(data))
		}
	}
	for _, want := range []string{odd().binary, odd().config, "run", "/data of %u$b", launchdLabel} {
		if !slices.Contains(texts, want) {
			t.Errorf("got no %q, want it in %q", want, texts)
		}
	}
	if plan.file != "/home/a b/Library/LaunchAgents/companion.agent.plist" || plan.start[0][2] != "gui/501" {
		t.Errorf("got the file %s and the domain %s, want companion.agent.plist and gui/501", plan.file, plan.start[0][2])
	}
}

// The task runs with the user's own rights at each logon, and its command quotes every word.
func TestTaskPlan(t *testing.T) {
	spec := odd()
	spec.binary, spec.config = `C:\Program Files\companion.exe`, ""
	plan := taskPlan(spec)
	create := strings.Join(plan.start[0], " ")
	for _, want := range []string{"/SC ONLOGON", "/RL LIMITED", `/TR "C:\Program Files\companion.exe" "run"`} {
		if !strings.Contains(create, want) {
			t.Errorf("got no %q, want it in %s", want, create)
		}
	}
	if plan.file != "" {
		t.Errorf("got the file %s, want none", plan.file)
	}
}

// Every system that has a plan also has every step of it; the others are refused.
func TestPlanFor(t *testing.T) {
	for _, system := range []string{"linux", "darwin", "windows"} {
		plan, err := planFor(system, odd())
		if err != nil || len(plan.start) == 0 || len(plan.stop) == 0 || len(plan.state) == 0 || plan.advice == "" {
			t.Errorf("%s: got %+v, %v; want every step", system, plan, err)
		}
		if plan.file != "" && len(plan.restart) == 0 {
			t.Errorf("%s: a second installation does nothing", system)
		}
	}
	if _, err := planFor("plan9", odd()); err == nil {
		t.Error("plan9: got no error, want one")
	}
}

// A failing command of the manager is quoted with its own words; a step that may fail does not end the rest.
func TestRunSteps(t *testing.T) {
	if _, err := serviceOutput(t.Context(), []string{"sh", "-c", "true"}); err != nil {
		t.Skip("no shell here")
	}
	err := runSteps(t.Context(), servicePlan{advice: "look there"}, [][]string{{"-sh", "-c", "exit 3"}, {"sh", "-c", "echo no bus; exit 1"}})
	var f *failure
	if !errors.As(err, &f) || !strings.HasSuffix(f.message, "no bus") || f.hint != "look there" {
		t.Errorf("got %v, want the manager's words and the advice", err)
	}
}
