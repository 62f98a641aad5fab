package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/user"
	"regexp"
	"runtime"
	"strings"
	"time"

	"go.uber.org/zap/zapcore"

	"companion/actors/logfile"
	"companion/adapters/config"
)

// bundleLines is how many of the last log lines a bundle holds.
const bundleLines = 300

// bundle is what a person attaches to a report.
type bundle struct {
	MadeAt   time.Time         `json:"madeAt"`
	Version  string            `json:"version"`
	Revision string            `json:"revision"`
	Platform string            `json:"platform"`
	Checks   []finding         `json:"checks"`
	Status   any               `json:"status"`
	Settings map[string]string `json:"settings"` // where each value that is not a default came from; no value
	Log      []json.RawMessage `json:"log"`
}

// writeBundle writes a new file of mode 0600. Names of the user, the machine, the hub and the home folder are replaced;
// no setting's value and no environment variable is in it.
func (a *app) writeBundle(path string, found []finding, x *examination) error {
	b := bundle{MadeAt: time.Now().UTC(), Version: version, Revision: revision(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Checks: found, Settings: map[string]string{}, Log: []json.RawMessage{}}
	if x.status != nil {
		status := *x.status
		if status.Session.User != "" {
			status.Session.User = "[user]"
		}
		b.Status = status
	}
	for _, value := range x.values {
		if value.Source != config.FromDefault {
			b.Settings[value.Key] = string(value.Source)
		}
	}
	if x.places.Log != "" {
		_ = logfile.Tail(context.Background(), logfile.TailOptions{Path: x.places.Log, Filter: logfile.Filter{Level: zapcore.DebugLevel}}, func(r logfile.Record) error {
			b.Log = append(b.Log, r.Line)
			b.Log = b.Log[max(0, len(b.Log)-bundleLines):]
			return nil
		})
	}
	encoded, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the report: %w", err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	_, err = file.WriteString(safeJSON([]byte(redact(string(encoded), x))) + "\n")
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// secretShape finds what looks like a token, wherever it came from: a long run of letters and digits.
var secretShape = regexp.MustCompile(`[A-Za-z0-9_+/=-]{32,}`)

// redact replaces names and what looks like a secret.
func redact(text string, x *examination) string {
	names := map[string]string{}
	add := func(name, instead string) {
		if len(name) > 2 {
			names[name] = instead
		}
	}
	if home, err := os.UserHomeDir(); err == nil {
		add(home, "~")
	}
	if me, err := user.Current(); err == nil && me.Uid != "0" {
		add(me.Username, "[user]")
		add(me.Name, "[user]")
	}
	if host, err := os.Hostname(); err == nil {
		add(host, "[host]")
	}
	if hub, err := url.Parse(x.s.Hub.URL); err == nil && hub.Hostname() != "localhost" {
		add(hub.Hostname(), "[hub]")
	}
	for _, value := range []string{x.s.Hub.ClientID, x.s.Hub.CAFile, x.s.Manifest.RootFile, x.s.Runtime.AllowUnpinnedBinary} {
		add(value, "[setting]")
	}
	if x.status != nil {
		add(x.status.Session.User, "[user]")
	}
	for name, instead := range names {
		text = strings.ReplaceAll(text, name, instead)
	}
	return secretShape.ReplaceAllStringFunc(text, func(match string) string {
		if strings.Contains(match, "/") && !strings.ContainsAny(match, "0123456789") {
			return match // a path or words, no secret
		}
		return "[redacted]"
	})
}
