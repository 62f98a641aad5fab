package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"os/user"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
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
	b := bundle{MadeAt: time.Now().UTC(), Version: version, Revision: revision()[:min(12, len(revision()))], Platform: runtime.GOOS + "/" + runtime.GOARCH,
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
	encoded, err := redacted(b, x)
	if err != nil {
		return fmt.Errorf("encoding the report: %w", err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	_, err = file.WriteString(safeJSON(encoded) + "\n")
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// secretShape finds what looks like a token, wherever it came from: a long run of letters and digits.
var secretShape = regexp.MustCompile(`[A-Za-z0-9_+/=-]{32,}`)

// inURL finds what a URL can hold besides its place: a user with a password, and a query or a fragment.
var inURL = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)([^/\s"@?#\\]*@)?([^\s"?#\\]*)([?#][^\s"\\]*)?`)

// redacted encodes a report and redacts each string of it, names included. On the encoded text a name with a character
// that JSON escapes, such as the backslash of a Windows path, would not be found.
func redacted(b bundle, x *examination) ([]byte, error) {
	encoded, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	redact := redactor(x)
	var out bytes.Buffer
	from := jsontext.NewDecoder(bytes.NewReader(encoded), jsontext.AllowDuplicateNames(true))
	to := jsontext.NewEncoder(&out, jsontext.AllowDuplicateNames(true), jsontext.WithIndent("  "))
	for {
		token, err := from.ReadToken()
		if errors.Is(err, io.EOF) {
			return bytes.TrimSpace(out.Bytes()), nil
		}
		if err != nil {
			return nil, err
		}
		if token.Kind() == '"' {
			token = jsontext.String(redact(token.String()))
		}
		if err := to.WriteToken(token); err != nil {
			return nil, err
		}
	}
}

// redactor replaces names and what looks like a secret in a text.
func redactor(x *examination) func(string) string {
	names := privateNames(x)
	// Longer names first: a shorter one may be a part of them.
	sorted := slices.SortedFunc(maps.Keys(names), func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	var pairs []string
	for _, name := range sorted {
		pairs = append(pairs, name, names[name])
	}
	replace := strings.NewReplacer(pairs...)
	return func(text string) string {
		text = replace.Replace(text)
		text = inURL.ReplaceAllStringFunc(text, func(match string) string {
			parts := inURL.FindStringSubmatch(match)
			return parts[1] + mark(parts[2] != "", "[redacted]@", "") + parts[3] + mark(parts[4] != "", "?[redacted]", "")
		})
		text = inAddress.ReplaceAllStringFunc(text, func(match string) string {
			if at, err := netip.ParseAddr(strings.Trim(match, "[]")); err != nil || at.IsLoopback() || at.IsUnspecified() {
				return match
			}
			return "[address]"
		})
		return secretShape.ReplaceAllStringFunc(text, func(match string) string {
			if strings.Contains(match, "/") && !strings.ContainsAny(match, "0123456789") {
				return match // a path or words, no secret
			}
			return "[redacted]"
		})
	}
}

// inAddress finds what may be an IP address.
var inAddress = regexp.MustCompile(`\b\d{1,3}(?:\.\d{1,3}){3}\b|\[[0-9a-fA-F:.]*:[0-9a-fA-F:.]*\]`)

// privateNames are the names of the user, of this machine and of what the user configured or added, and what replaces them.
func privateNames(x *examination) map[string]string {
	names := map[string]string{}
	add := func(name, instead string) {
		if len(name) > 2 {
			names[name] = instead
		}
	}
	if me, err := user.Current(); err == nil && me.Uid != "0" {
		add(me.Username, "[user]")
		add(me.Name, "[user]")
	}
	if host, err := os.Hostname(); err == nil {
		add(host, "[host]")
	}
	for _, address := range []string{x.s.Hub.URL, x.s.Hub.IssuerURL} {
		if hub, err := url.Parse(address); err == nil && hub.Hostname() != "localhost" {
			add(hub.Hostname(), "[hub]")
		}
	}
	for _, value := range []string{x.s.Hub.ClientID, x.s.Hub.CAFile, x.s.Manifest.RootFile, x.s.Runtime.AllowUnpinnedBinary} {
		add(value, "[setting]")
	}
	if x.status != nil {
		add(x.status.Session.User, "[user]")
		for i, application := range x.status.FrontDoor.Applications {
			add(application.Name, fmt.Sprintf("[application %d]", i+1))
		}
		if x.status.Model.Yours {
			add(x.status.Model.Name, "[model]")
		}
		if x.status.Runtime.Yours {
			add(x.status.Runtime.Name, "[runtime]")
		}
	}
	if home, err := os.UserHomeDir(); err == nil {
		add(home, "~")
	}
	return names
}
