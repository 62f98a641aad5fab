package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-runewidth"
	"go.uber.org/zap/zapcore"

	"companion/actors/logfile"
	"companion/messages"
)

// watched is a history of n seconds in which a stream gives ten tokens a second.
func watched(n int) *history {
	h := &history{}
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i := range n {
		s := working()
		s.Since = s.StartedAt.Add(time.Second)
		s.AvailableSeconds = float64(i)
		s.FrontDoor.MaxInFlight, s.FrontDoor.Queued = 2, i%3
		s.FrontDoor.Progress, s.FrontDoor.CompletionTokens, s.FrontDoor.GenerationSeconds = int64(10*i), int64(10*i), float64(i)/2
		s.FrontDoor.FirstTokenCount, s.FrontDoor.FirstTokenSumMilliseconds = int64(1+i), float64(100+200*i)
		s.FrontDoor.Applications = []messages.ApplicationView{{Name: "editor", Requests: 7}}
		s.Runtime.CPUPercent = float64(i)
		s.Actors = []messages.ActorView{{Name: "lifecycle"}, {Name: "door/health", Restarts: 2, LastError: "a\x1b[2Jb"}}
		s.Transfers = []messages.Transfer{{Name: "gemma", Bytes: 11 << 20, Total: 241 << 20, SecondsLeft: 230}}
		h.add(s, began.Add(time.Duration(i)*time.Second))
	}
	return h
}

func pageText(width, height int, h *history, lines []logfile.Record) []string {
	p := page{width: width, height: height}
	p.show(h, lines, "next step")
	var rows []string
	for _, row := range p.rows {
		var b strings.Builder
		for _, at := range row {
			b.WriteString(at.text)
		}
		rows = append(rows, b.String())
	}
	return rows
}

func logLine(event string, level zapcore.Level) logfile.Record {
	return logfile.Record{Time: time.Now(), Level: level, Actor: "lifecycle", Event: event, Line: []byte("{}")}
}

// X6: the dashboard has every value in 80 columns and 24 rows, without a character that steers the terminal.
func TestDashboard(t *testing.T) {
	text := strings.Join(pageText(80, 24, watched(60), []logfile.Record{logLine("older", zapcore.InfoLevel), logLine("newest", zapcore.WarnLevel)}), "\n")
	for _, want := range []string{
		"● available for", "% of the time", "tokens/s     10.0 (mean 20.0, 590 in all)", "first token  200ms of the last 59, mean 198ms of 60 streams",
		"queue        1 of 2 running, 2 waiting", "memory       512 MiB", "CPU          59%", "▃▄▄", "█",
		"invalid_token 2, ok 4", "applications editor 7", "gemma 11 of 241 MiB (4%)", "door/health restarted 2 times: a[2Jb",
		"1 run without a restart", "signed in as Ada", "newest", "next: next step", "q quits",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("got no %q, want it in\n%s", want, text)
		}
	}
	if strings.ContainsFunc(strings.ReplaceAll(text, "\n", ""), steers) {
		t.Errorf("got %q, want no control character", text)
	}
}

// X6: at each size of a terminal the rows fit, and the headline and the next step stay.
func TestDashboardFits(t *testing.T) {
	lines := []logfile.Record{logLine(strings.Repeat("long ", 100), zapcore.InfoLevel)}
	for _, size := range [][2]int{{80, 24}, {40, 10}, {20, 5}, {200, 60}, {10, 2}, {1, 1}, {13, 24}} {
		rows := pageText(size[0], size[1], watched(historyKept+10), lines)
		if len(rows) > max(2, size[1]) {
			t.Errorf("%v: got %d rows, want at most %d", size, len(rows), max(2, size[1]))
		}
		for _, row := range rows {
			if w := runewidth.StringWidth(row); w > size[0] {
				t.Errorf("%v: got %d columns, want at most %d: %q", size, w, size[0], row)
			}
		}
		if size[0] >= 20 && (!strings.HasPrefix(rows[0], "companion") || !strings.HasPrefix(rows[len(rows)-1], "next: ")) {
			t.Errorf("%v: got %q first and %q last, want the headline and the next step", size, rows[0], rows[len(rows)-1])
		}
	}
}

// X6: not available, the dashboard says why; nothing is in a color alone.
func TestDashboardUnavailable(t *testing.T) {
	s := working()
	s.CompanionAvailable, s.Lifecycle, s.Reason = false, messages.StateStopped, messages.ReasonRAMOverLimit
	s.Runtime.Held = true
	h := &history{}
	h.add(s, time.Now())
	if got := pageText(100, 24, h, nil)[0]; !strings.Contains(got, "○ not available: the runtime needs more memory") {
		t.Errorf("got %q, want the reason", got)
	}
}

// The pace of the graphs is steady: a status at a change replaces the last one, and a counter that falls gives no speed.
func TestHistory(t *testing.T) {
	h, at := &history{}, time.Unix(1700000000, 0)
	for _, after := range []time.Duration{0, time.Second, 1100 * time.Millisecond, 2 * time.Second, 3 * time.Second} {
		s := working()
		s.FrontDoor.Progress = int64(after / time.Millisecond)
		if after == 3*time.Second {
			s.FrontDoor.Progress = 0
		}
		h.add(s, at.Add(after))
	}
	if got := fmt.Sprintf("%.0f", h.speeds()); len(h.samples) != 4 || got != "[1000 1000 0]" {
		t.Errorf("got %d samples and the speeds %s, want 4 and [1000 1000 0]", len(h.samples), got)
	}
}
