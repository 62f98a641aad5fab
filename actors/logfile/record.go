package logfile

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.uber.org/zap/zapcore"

	"companion/messages"
)

const timeLayout = "2006-01-02T15:04:05.000000Z07:00"

// Record is one line of the log.
type Record struct {
	Time   time.Time       `json:"time"`
	Level  zapcore.Level   `json:"level"`
	Actor  string          `json:"actor"`
	Event  string          `json:"event"`
	Reason messages.Reason `json:"reason"`
	Line   []byte          `json:"-"` // the JSON itself, without its line end
}

// Parse reads a line of the log. Lines without time, actor or event are refused.
func Parse(line []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(line, &r); err != nil {
		return Record{}, fmt.Errorf("reading a log line: %w", err)
	}
	if r.Time.IsZero() || r.Actor == "" || r.Event == "" {
		return Record{}, fmt.Errorf("reading a log line: time, actor or event is missing")
	}
	r.Line = []byte(strings.TrimRight(string(line), "\n"))
	return r, nil
}

// Text is the readable form: local date and time, level, actor, event, reason, then the other fields by name. It
// holds no control characters.
func (r Record) Text(colour bool) string {
	var b strings.Builder
	b.WriteString(r.Time.Local().Format("2006-01-02 15:04:05.000 "))
	level := fmt.Sprintf("%-5s", r.Level.CapitalString())
	if colour {
		level = levelColour(r.Level) + level + "\x1b[0m"
	}
	fmt.Fprintf(&b, "%s %-18s %s", level, printable(r.Actor), printable(r.Event))
	if r.Reason != "" {
		fmt.Fprintf(&b, " reason=%s", printable(string(r.Reason)))
	}
	var fields map[string]any
	if err := json.Unmarshal(r.Line, &fields); err != nil {
		return b.String()
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		switch name {
		case "time", "level", "actor", "event", "reason":
			continue
		}
		fmt.Fprintf(&b, " %s=%s", printable(name), value(fields[name]))
	}
	return b.String()
}

func value(v any) string {
	if text, ok := v.(string); ok {
		if text == "" || strings.ContainsAny(text, " =\"") {
			return strconv.Quote(text)
		}
		return printable(text)
	}
	// A value that was decoded from JSON always encodes.
	encoded, _ := json.Marshal(v)
	return printable(string(encoded))
}

// printable quotes text that contains control characters: a line may repeat output of the runtime.
func printable(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

func levelColour(l zapcore.Level) string {
	switch {
	case l >= zapcore.ErrorLevel:
		return "\x1b[31m"
	case l == zapcore.WarnLevel:
		return "\x1b[33m"
	case l == zapcore.DebugLevel:
		return "\x1b[2m"
	}
	return "\x1b[36m"
}
