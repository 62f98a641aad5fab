package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"
	"go.uber.org/zap/zapcore"

	"companion/actors/logfile"
	"companion/messages"
)

// look is how a part of a row is shown.
type look int

const (
	lookPlain look = iota
	lookBold
	lookDim
	lookGood
	lookBad
	lookGraph
)

// part is a text in one look.
type part struct {
	look look
	text string
}

// page is the content of the dashboard for one size of the terminal: rows that are not wider, at most height of them. The
// headline, the next step and at least one log line stay on a small terminal; rows between them are left out.
type page struct {
	width, height int
	rows          [][]part
}

// labelWidth is the width of the first column.
const labelWidth = 13

func (p *page) row(label string, parts ...part) {
	all := append([]part{{lookDim, fmt.Sprintf("%-*s", labelWidth, label)}}, parts...)
	p.rows = append(p.rows, fit(all, p.width))
}

func (p *page) text(label, format string, values ...any) {
	p.row(label, part{lookPlain, fmt.Sprintf(format, values...)})
}

// fit cuts a row at the width.
func fit(row []part, width int) []part {
	var out []part
	for _, at := range row {
		text := oneLine(at.text)
		if w := runewidth.StringWidth(text); w > width {
			text = runewidth.Truncate(text, width, "…")
		}
		width -= runewidth.StringWidth(text)
		out = append(out, part{at.look, text})
		if width <= 0 {
			break
		}
	}
	return out
}

// show fills the page.
func (p *page) show(h *history, lines []logfile.Record, step string) {
	last, _ := h.last()
	s := last.status
	head := part{lookBad, "○ " + stage(s)}
	if s.CompanionAvailable {
		head = part{lookGood, "● available"}
	}
	p.rows = append(p.rows, fit([]part{{lookBold, "companion " + s.Version + "  "}, head, {lookDim, sinceText(s, last.at) + "   q quits"}}, p.width), nil)
	p.figures(h, s)
	p.requests(s)
	p.state(s)
	next := fit([]part{{lookBold, "next: "}, {lookPlain, step}}, p.width)
	room := p.height - len(p.rows) - 3 // an empty row, the log's first line, the next step
	if room < 0 {
		p.rows = p.rows[:max(1, len(p.rows)+room)]
		room = 0
	}
	p.rows = append(p.rows, nil)
	p.logLines(lines, room+1)
	for len(p.rows) < p.height-1 {
		p.rows = append(p.rows, nil)
	}
	p.rows = append(p.rows[:min(len(p.rows), max(1, p.height-1))], next)
}

// sinceText says for how long the state holds, and for which part of the daemon's life inference was available.
func sinceText(s messages.Status, now time.Time) string {
	if s.Since.IsZero() || !s.CompanionAvailable {
		return ""
	}
	text := " for " + now.Sub(s.Since).Round(time.Second).String()
	if life := now.Sub(s.StartedAt).Seconds(); life > 0 && !s.StartedAt.IsZero() {
		text += fmt.Sprintf(", %.0f%% of the time", min(100, 100*s.AvailableSeconds/life))
	}
	return text
}

// figures are the values with a graph.
func (p *page) figures(h *history, s messages.Status) {
	room := max(0, p.width-labelWidth-32)
	figure := func(label, value string, values []float64) {
		values = values[max(0, len(values)-room):]
		p.row(label, part{lookPlain, fmt.Sprintf("%-31s ", value)}, part{lookGraph, graph(values)})
	}
	speeds := h.speeds()
	now := 0.0
	if len(speeds) > 0 {
		now = speeds[len(speeds)-1]
	}
	figure("tokens/s", fmt.Sprintf("%.1f%s", now, meanSpeed(s.FrontDoor)), speeds)
	p.text("first token", "%s", firstToken(h))
	figure("queue", fmt.Sprintf("%d of %d running, %d waiting", s.FrontDoor.InFlight, s.FrontDoor.MaxInFlight, s.FrontDoor.Queued),
		h.values(func(s messages.Status) float64 { return float64(s.FrontDoor.InFlight + s.FrontDoor.Queued) }))
	figure("memory", bytesText(s.Runtime.ResidentBytes)+mark(s.Runtime.GPUBytes > 0, ", GPU "+bytesText(s.Runtime.GPUBytes), ""),
		h.values(func(s messages.Status) float64 { return float64(s.Runtime.ResidentBytes) }))
	figure("CPU", fmt.Sprintf("%.0f%%", s.Runtime.CPUPercent), h.values(func(s messages.Status) float64 { return s.Runtime.CPUPercent }))
}

// meanSpeed is the mean of complete answers since the daemon's start.
func meanSpeed(d messages.StatusFrontDoor) string {
	if d.GenerationSeconds <= 0 {
		return ""
	}
	return fmt.Sprintf(" (mean %.1f, %d in all)", float64(d.CompletionTokens)/d.GenerationSeconds, d.CompletionTokens)
}

// firstToken is the mean time to the first token of the streams that the history saw, or of all.
func firstToken(h *history) string {
	last, _ := h.last()
	now := last.status.FrontDoor
	if now.FirstTokenCount == 0 {
		return "no stream yet"
	}
	ms := func(sum float64, n int64) time.Duration {
		return time.Duration(sum / float64(n) * float64(time.Millisecond)).Round(time.Millisecond)
	}
	all := fmt.Sprintf("mean %v of %d %s", ms(now.FirstTokenSumMilliseconds, now.FirstTokenCount), now.FirstTokenCount, mark(now.FirstTokenCount == 1, "stream", "streams"))
	before := h.samples[0].status.FrontDoor
	if n := now.FirstTokenCount - before.FirstTokenCount; n > 0 && before.FirstTokenCount > 0 {
		return fmt.Sprintf("%v of the last %d, %s", ms(now.FirstTokenSumMilliseconds-before.FirstTokenSumMilliseconds, n), n, all)
	}
	return all
}

// requests are counts by verdict and by application.
func (p *page) requests(s messages.Status) {
	verdicts := make(map[string]int64, len(s.FrontDoor.Verdicts))
	for reason, n := range s.FrontDoor.Verdicts {
		verdicts[string(reason)] = n
	}
	p.text("requests", "%s", mark(len(verdicts) > 0, counts(verdicts), "none yet"))
	if len(s.FrontDoor.Applications) > 0 {
		used := map[string]int64{}
		for _, application := range s.FrontDoor.Applications {
			used[application.Name] += application.Requests
		}
		p.text("applications", "%s", counts(used))
	}
	if n := s.FrontDoor.EndedRuntime; n > 0 {
		p.row("", part{lookBad, fmt.Sprintf("%d ended the runtime, refused for an hour after that", n)})
	}
	if fields := counts(s.FrontDoor.Dropped); fields != "" {
		p.text("left out", "%s", fields)
	}
}

// state are model, runtime, session, manifest, transfers and actors.
func (p *page) state(s messages.Status) {
	p.text("endpoint", "%s", mark(s.FrontDoor.BaseURL != "", s.FrontDoor.BaseURL, "not open"))
	p.text("model", "%s", modelRow(s))
	p.text("runtime", "%s", runtimeRow(s.Runtime))
	if exit := s.Runtime.LastExit; exit != nil {
		p.row("last exit", part{lookBad, exit.At.Local().Format(time.TimeOnly) + " " + exitText(*exit)})
	}
	p.text("session", "%s", sessionRow(s.Session))
	p.text("manifest", "%s", manifestRow(s.Manifest))
	for _, t := range s.Transfers {
		p.text("transfer", "%s", transferRow(t))
	}
	actors := slices.Clone(s.Actors)
	slices.SortStableFunc(actors, func(a, b messages.ActorView) int { return b.Restarts - a.Restarts })
	quiet := 0
	for _, actor := range actors {
		if actor.Restarts == 0 {
			quiet++
			continue
		}
		p.row("actor", part{lookBad, fmt.Sprintf("%s restarted %s: %s", actor.Name, times(actor.Restarts), actor.LastError)})
	}
	p.text("actors", "%d run without a restart", quiet)
}

// logLines are the newest lines of the log, at most n.
func (p *page) logLines(lines []logfile.Record, n int) {
	for i, r := range lines[max(0, len(lines)-n):] {
		how := lookPlain
		if r.Level >= zapcore.WarnLevel {
			how = lookBad
		}
		_, text, _ := strings.Cut(r.Text(false), " ") // without the date
		p.row(mark(i == 0, "log", ""), part{how, text})
	}
	if len(lines) == 0 {
		p.text("log", "no line in the last %v", logsBack)
	}
}
