package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"companion/messages"
)

func working() messages.Status {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return messages.Status{
		Version: "1", PID: 9, StartedAt: at, CompanionAvailable: true, Lifecycle: messages.StateReady, Reason: messages.ReasonOK,
		Facts:     messages.StatusFacts{Verified: true, Ready: true, Bound: true, Token: true, HealthRecent: true},
		FrontDoor: messages.StatusFrontDoor{BaseURL: "http://127.0.0.1:43121/v1", InFlight: 1, Verdicts: map[messages.Reason]int64{"ok": 4, "invalid_token": 2}},
		Model:     messages.StatusModel{Name: "gemma", Version: "1", Verified: true},
		Runtime: messages.StatusRuntime{Name: "llama", PID: 12, BackEnd: "unix", Pinned: true,
			Sandbox: messages.Sandbox{Landlock: 7, Seccomp: true}, ResidentBytes: 512 << 20, CPUPercent: 40},
		Session: messages.StatusSession{State: messages.SessionSignedIn, User: "Ada\x1b[31m"},
	}
}

// X6: one screen, readable without colour, that nothing in it can steer.
func TestScreen(t *testing.T) {
	text := screen(working(), false, "next step")
	for _, want := range []string{"● available", "http://127.0.0.1:43121/v1", "1 running", "gemma 1, verified", "Landlock 7, seccomp on",
		"512 MiB", "signed in as Ada", "invalid_token 2", "next step"} {
		if !strings.Contains(text, want) {
			t.Errorf("got no %q, want it in:\n%s", want, text)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Errorf("got %q, want no control of the terminal", text)
	}
	if !strings.Contains(screen(working(), true, ""), green) {
		t.Error("got no color although it was requested, want it")
	}
	ended := working()
	ended.FrontDoor.EndedRuntime = 2
	if text := screen(ended, false, ""); !strings.Contains(text, "2 ended the runtime") { // R11
		t.Errorf("got no word of two requests that ended the runtime, want one:\n%s", text)
	}
	unpinned := working()
	unpinned.Runtime.Pinned = false
	if !strings.Contains(screen(unpinned, false, ""), "NOT PINNED") { // M10
		t.Error("got no word about the unpinned binary, want it named")
	}
}

// One row per situation: the screen always ends with what to do.
func TestNext(t *testing.T) {
	tests := []struct {
		name   string
		change func(*messages.Status)
		want   string
	}{
		{"available", func(*messages.Status) {}, "companion chat"},
		{"no token", func(s *messages.Status) { s.Facts.Token = false }, "keychain"},
		{"signed out, nothing here", func(s *messages.Status) { s.Facts.Verified, s.Session.State = false, messages.SessionSignedOut }, "companion login"},
		{"signed in, nothing here", func(s *messages.Status) { s.Facts.Verified = false }, "companion pull"},
		{"transferring", func(s *messages.Status) { s.Transfers = []messages.Transfer{{Name: "m"}} }, "wait for the transfer"},
		{"held", func(s *messages.Status) { s.Runtime.Held = true }, "companion start"},
		{"stopped", func(s *messages.Status) { s.Lifecycle = messages.StateStopped }, "companion start"},
		{"starting", func(s *messages.Status) { s.Lifecycle = messages.StateStarting }, "wait a moment"},
		{"waiting after a crash", func(s *messages.Status) {
			s.Lifecycle, s.Runtime.RetryAt = messages.StateStopped, new(time.Time)
		}, "wait a moment"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := working()
			if tt.name != "available" {
				s.CompanionAvailable = false
			}
			tt.change(&s)
			if got := next(s); !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestGraph(t *testing.T) {
	if got := graph([]float64{0, 50, 100, -1}); got != "▁▄█▁" {
		t.Errorf("got %s, want ▁▄█▁", got)
	}
}

// X4: what env prints, each shell reads back as the same value.
func TestShells(t *testing.T) {
	variables := []variable{{"A", "it's"}, {"B", "b"}}
	want := map[string]string{
		"sh":         "export A='it'\\''s'\nexport B='b'\n",
		"bash":       "export A='it'\\''s'\nexport B='b'\n",
		"zsh":        "export A='it'\\''s'\nexport B='b'\n",
		"fish":       "set -gx A 'it\\'s'\nset -gx B 'b'\n",
		"powershell": "$Env:A = 'it''s'\n$Env:B = 'b'\n",
		"json":       `{"A":"it's","B":"b"}` + "\n",
	}
	if len(want) != len(shells) {
		t.Fatalf("got %d shells, want %d", len(shells), len(want))
	}
	for shell, text := range want {
		if got := shells[shell](variables); got != text {
			t.Errorf("%s: got %q, want %q", shell, got, text)
		}
	}
	got := environment([]string{"A=old", "HOME=/h", "B=old"}, variables)
	if strings.Join(got, " ") != "HOME=/h A=it's B=b" {
		t.Errorf("got environment %v, want HOME, A and B once each", got)
	}
}

// X6: a full screen fits 80 columns and 24 rows.
func TestScreenFits(t *testing.T) {
	s := working()
	s.Runtime.Name, s.Runtime.Version, s.Runtime.PID = "llama-server", "0.10434.0", 1234567
	s.Runtime.ResidentBytes, s.Runtime.CPUPercent, s.Runtime.Restarts = 1023<<20, 1599, 1
	s.Model.Name, s.Model.Version = "SmolLM2-135M-Instruct", "1.0.0"
	s.Transfers = []messages.Transfer{{Name: "a model\nof two lines", Bytes: 11 << 20, Total: 241 << 20, BytesPerSecond: 1 << 20, SecondsLeft: 230}}
	at := time.Now()
	s.Manifest = messages.StatusManifest{Version: 1234, Expires: &at, CheckedAt: &at}
	text := screen(s, false, next(s))
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) > 24 {
		t.Errorf("got %d lines, want at most 24:\n%s", len(lines), text)
	}
	for _, line := range lines {
		if n := utf8.RuneCountInString(line); n > 80 {
			t.Errorf("got %d columns, want at most 80: %s", n, line)
		}
	}
	for _, want := range []string{"restarted once", "11 of 241 MiB (4%)", "a model of two lines"} {
		if !strings.Contains(text, want) {
			t.Errorf("got no %q, want it in:\n%s", want, text)
		}
	}
}

// One row per state: the headline says what happens, in words.
func TestHeadline(t *testing.T) {
	since := time.Now().Add(-4 * time.Second)
	for name, row := range map[string]struct {
		change func(*messages.Status)
		want   string
	}{
		"starting": {func(s *messages.Status) { s.Lifecycle, s.Since = messages.StateStarting, since }, "starting: loading gemma (4 s)"},
		"fetching": {func(s *messages.Status) {
			s.Lifecycle, s.Facts.Verified = messages.StateStopped, false
			s.Transfers = []messages.Transfer{{Name: "gemma", Bytes: 1 << 20, Total: 2 << 20}}
		}, "fetching gemma 1.0 of 2.0 MiB (50%)"},
		"stopped": {func(s *messages.Status) { s.Lifecycle, s.Reason = messages.StateStopped, messages.ReasonNotReady }, "stopped"},
		"too small": {func(s *messages.Status) {
			s.Lifecycle, s.Reason, s.Runtime.Held = messages.StateStopped, messages.ReasonCrashLoop, true
			s.Runtime.LastExit = &messages.ExitReport{Reason: messages.ReasonRAMOverLimit}
		}, "last: the runtime needs more memory than `runtime.memory_limit` (ram_over_limit)"},
		"signed out": {func(s *messages.Status) {
			s.Lifecycle, s.Facts.Verified, s.Reason = messages.StateStopped, false, messages.ReasonSignInNeeded
		}, "not available: nobody is signed in (reauth)"},
		"asleep": {func(s *messages.Status) { s.CompanionAvailable, s.Runtime.Asleep = true, true }, "available, the model is asleep"},
	} {
		s := working()
		s.CompanionAvailable = false
		row.change(&s)
		if got := headline(s, false); !strings.Contains(got, row.want) {
			t.Errorf("%s: got %q, want %q", name, got, row.want)
		}
	}
}
