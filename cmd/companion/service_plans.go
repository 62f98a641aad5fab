package main

import (
	"encoding/xml"
	"fmt"
	"path/filepath"
	"strings"
)

const (
	systemdUnit  = "companion.service"
	launchdLabel = "companion.agent"
	taskName     = "companion"
)

// systemdPlan is a systemd user unit. Its hardening is what a user manager can set without namespaces, which would take
// the keyring and the run-time folder away, and what leaves the runtime's own sandbox (Landlock, seccomp) working.
func systemdPlan(s serviceSpec) servicePlan {
	var b strings.Builder
	b.WriteString(`# Written by "companion service install"; "companion service uninstall" removes it.
[Unit]
Description=Companion, a private local language model
# Failures back off below; they never end for good.
StartLimitIntervalSec=0

[Service]
Type=notify
`)
	var argv []string
	for i, argument := range s.arguments() {
		if quote := systemdQuote(argument); i == 0 {
			argv = append(argv, quote) // a program's path is no place for a variable
		} else {
			argv = append(argv, strings.ReplaceAll(quote, "$", "$$"))
		}
	}
	fmt.Fprintf(&b, "ExecStart=%s\n", strings.Join(argv, " "))
	for _, variable := range s.environ {
		fmt.Fprintf(&b, "Environment=%s\n", systemdQuote(variable))
	}
	b.WriteString(`WatchdogSec=30s
# A daemon that hangs gets SIGABRT, which leaves its stacks in the journal, and is killed when it does not end.
TimeoutAbortSec=5s
# Go ends a panic and SIGABRT with exit status 2, that of a wrong configuration; "crash" ends both by the signal.
Environment=GOTRACEBACK=crash
LimitCORE=0
Restart=on-failure
RestartSec=200ms
# Longer and longer, up to a minute, while it does not become ready (systemd 254; older ones keep RestartSec). systemd
# never forgets a failure of a unit that runs, so that the sixth in a year would cost a minute: each readiness forgets.
RestartSteps=6
RestartMaxDelaySec=1min
ExecStartPost=-systemctl --user reset-failed ` + systemdUnit + `
# Wrong configuration, no keychain, already running: another try changes nothing.
RestartPreventExitStatus=2 7 8
# The daemon is interrupted alone; it drains, and ends the runtime itself.
KillMode=mixed
TimeoutStopSec=30s
UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes

[Install]
WantedBy=default.target
`)
	systemctl := func(words ...string) []string { return append([]string{"systemctl", "--user"}, words...) }
	return servicePlan{
		file: filepath.Join(s.places, "systemd", "user", systemdUnit), text: b.String(),
		start:   [][]string{systemctl("daemon-reload"), systemctl("enable", systemdUnit), systemctl("restart", systemdUnit)},
		restart: [][]string{systemctl("daemon-reload"), systemctl("enable", systemdUnit), systemctl("restart", systemdUnit)},
		stop:    [][]string{systemctl("disable", "--now", systemdUnit)},
		removed: [][]string{systemctl("daemon-reload"), append([]string{"-systemctl"}, "--user", "reset-failed", systemdUnit)},
		state:   systemctl("show", systemdUnit, "--property=ActiveState,SubState,Result,StatusText,MainPID,UnitFileState"),
		advice:  "a systemd user manager must run for you: log in, or `companion service install --linger`; where there is no systemd, `companion run` does the same in a terminal",
	}
}

// systemdQuote quotes a word of a unit's file. "%" begins a specifier; in arguments of a command, and nowhere else, "$"
// begins a variable (systemd.service(5), "Command lines"; systemd.exec(5), Environment=).
func systemdQuote(word string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%").Replace(word) + `"`
}

// launchdPlan is a launchd agent. Compiled and tested as data; it was not run on a Mac.
func launchdPlan(s serviceSpec) servicePlan {
	var b strings.Builder
	text := func(value string) string {
		var escaped strings.Builder
		_ = xml.EscapeText(&escaped, []byte(value)) // into memory
		return "<string>" + escaped.String() + "</string>"
	}
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0"><dict>
<key>Label</key>` + text(launchdLabel) + `
<key>ProgramArguments</key><array>
`)
	for _, argument := range s.arguments() {
		b.WriteString(text(argument) + "\n")
	}
	b.WriteString("</array>\n<key>EnvironmentVariables</key><dict>\n")
	for _, variable := range s.environ {
		name, value, _ := strings.Cut(variable, "=")
		b.WriteString("<key>" + name + "</key>" + text(value) + "\n")
	}
	b.WriteString(`</dict>
<key>RunAtLoad</key><true/>
<key>KeepAlive</key><dict><key>SuccessfulExit</key><false/></dict>
<key>ThrottleInterval</key><integer>10</integer>
<key>ExitTimeOut</key><integer>30</integer>
<key>ProcessType</key><string>Background</string>
<key>Umask</key><integer>63</integer>
</dict></plist>
`)
	domain := fmt.Sprintf("gui/%d", s.uid)
	file := filepath.Join(s.home, "Library", "LaunchAgents", launchdLabel+".plist")
	return servicePlan{
		file: file, text: b.String(),
		start:   [][]string{{"launchctl", "bootstrap", domain, file}},
		restart: [][]string{{"-launchctl", "bootout", domain + "/" + launchdLabel}, {"launchctl", "bootstrap", domain, file}},
		stop:    [][]string{{"-launchctl", "bootout", domain + "/" + launchdLabel}},
		state:   []string{"launchctl", "print", domain + "/" + launchdLabel},
		advice:  "`launchctl print " + domain + "` and `companion logs` say more",
	}
}

// taskPlan is a task of the Windows scheduler, at each logon of this user. Compiled and tested as data; it was not run
// on a real Windows.
func taskPlan(s serviceSpec) servicePlan {
	var argv []string
	for _, argument := range s.arguments() {
		argv = append(argv, `"`+argument+`"`)
	}
	return servicePlan{
		start: [][]string{
			{"schtasks", "/Create", "/F", "/TN", taskName, "/SC", "ONLOGON", "/RL", "LIMITED", "/TR", strings.Join(argv, " ")},
			{"-schtasks", "/End", "/TN", taskName},
			{"schtasks", "/Run", "/TN", taskName},
		},
		stop:   [][]string{{"-schtasks", "/End", "/TN", taskName}, {"schtasks", "/Delete", "/F", "/TN", taskName}},
		state:  []string{"schtasks", "/Query", "/TN", taskName, "/V", "/FO", "LIST"},
		advice: "`schtasks /Query /TN companion /V` and `companion logs` say more",
	}
}
