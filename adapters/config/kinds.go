package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// key is one row of the table. Messages never quote a refused value, because it may be a secret or a private path.
type key struct {
	name    string // section.key
	doc     string // one line for the commented file
	accepts string // completes "accepted: …"
	initial any    // as TOML decodes it
	set     func(s *Settings, v any) error
}

var errRefused = errors.New("not an accepted value")

func stringKey(name, doc, accepts, initial string, at func(*Settings) *string, ok func(string) bool) key {
	return key{name, doc, accepts, initial, func(s *Settings, v any) error {
		text, isText := textOf(v)
		if !isText || !ok(text) {
			return errRefused
		}
		*at(s) = text
		return nil
	}}
}

func enumKey(name, doc string, at func(*Settings) *string, initial string, others ...string) key {
	all := append([]string{initial}, others...)
	quoted := make([]string, len(all))
	for i, one := range all {
		quoted[i] = strconv.Quote(one)
	}
	return stringKey(name, doc, strings.Join(quoted, ", "), initial, at,
		func(v string) bool { return slices.Contains(all, v) })
}

func intKey(name, doc string, initial, least, most int64, at func(*Settings) *int) key {
	accepts := fmt.Sprintf("a whole number from %d to %d", least, most)
	return key{name, doc, accepts, initial, func(s *Settings, v any) error {
		n, err := wholeNumber(v)
		if err != nil || n < least || n > most {
			return errRefused
		}
		*at(s) = int(n)
		return nil
	}}
}

// zeroOrKey is an intKey that also accepts 0, which is the default and means that the program chooses.
func zeroOrKey(name, doc string, least, most int64, at func(*Settings) *int) key {
	accepts := fmt.Sprintf("0, or a whole number from %d to %d", least, most)
	return key{name, doc, accepts, int64(0), func(s *Settings, v any) error {
		n, err := wholeNumber(v)
		if err != nil || n != 0 && (n < least || n > most) {
			return errRefused
		}
		*at(s) = int(n)
		return nil
	}}
}

func boolKey(name, doc string, initial bool, at func(*Settings) *bool) key {
	return key{name, doc, "true or false", initial, func(s *Settings, v any) error {
		switch v := v.(type) {
		case bool:
			*at(s) = v
			return nil
		case layerText:
			b, err := strconv.ParseBool(string(v))
			*at(s) = b
			return err
		}
		return errRefused
	}}
}

func durationKey(name, doc, initial string, least, most time.Duration, at func(*Settings) *time.Duration) key {
	accepts := fmt.Sprintf(`a duration from %v to %v, such as %q`, least, most, initial)
	return key{name, doc, accepts, initial, func(s *Settings, v any) error {
		text, isText := textOf(v)
		d, err := time.ParseDuration(text)
		if !isText || err != nil || d < least || d > most {
			return errRefused
		}
		*at(s) = d
		return nil
	}}
}

// sizeKey parses a size such as "6GiB". If optional is set, an empty value means no limit and is stored as zero.
func sizeKey(name, doc, initial string, optional bool, least int64, at func(*Settings) *int64) key {
	accepts := fmt.Sprintf(`a size of at least %s, such as "6GiB"`, humanize.IBytes(uint64(least)))
	if optional {
		accepts += `, or "" for no limit`
	}
	return key{name, doc, accepts, initial, func(s *Settings, v any) error {
		text, isText := textOf(v)
		if isText && optional && text == "" {
			*at(s) = 0
			return nil
		}
		n, err := humanize.ParseBytes(text)
		if !isText || err != nil || n > math.MaxInt64 || int64(n) < least {
			return errRefused
		}
		*at(s) = int64(n)
		return nil
	}}
}

// cacheKey parses "auto", which is stored as CacheAuto, "0" for none, or a size.
func cacheKey(name, doc string, at func(*Settings) *int64) key {
	const least = 1 << 20
	return key{name, doc, `"auto", "0" for none, or a size of at least 1.0 MiB, such as "256MiB"`, "auto", func(s *Settings, v any) error {
		text, isText := textOf(v)
		if isText && text == "auto" {
			*at(s) = CacheAuto
			return nil
		}
		n, err := humanize.ParseBytes(text)
		if !isText || err != nil || n > math.MaxInt64 || n != 0 && n < least {
			return errRefused
		}
		*at(s) = int64(n)
		return nil
	}}
}

func percentKey(name, doc string, at func(*Settings) *float64) key {
	accepts := `a percentage above 0 and up to 100, such as "80%", or "" for no limit`
	return key{name, doc, accepts, "", func(s *Settings, v any) error {
		text := fmt.Sprint(v)
		if text == "" {
			*at(s) = 0
			return nil
		}
		p, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
		if err != nil || math.IsNaN(p) || p <= 0 || p > 100 {
			return errRefused
		}
		*at(s) = p
		return nil
	}}
}

func hostsKey(name, doc string, at func(*Settings) *[]string) key {
	accepts := `a list of host names or addresses without a port, such as ["127.0.0.1"]`
	return key{name, doc, accepts, []any{}, func(s *Settings, v any) error {
		hosts := []string{}
		switch v := v.(type) {
		case []any:
			for _, one := range v {
				host, isText := one.(string)
				if !isText {
					return errRefused
				}
				hosts = append(hosts, host)
			}
		case layerText:
			hosts = strings.FieldsFunc(string(v), func(r rune) bool { return r == ',' || r == ' ' })
		default:
			return errRefused
		}
		for _, host := range hosts {
			if !isHost(host) {
				return errRefused
			}
		}
		*at(s) = hosts
		return nil
	}}
}

// layerText is a value from the environment or a flag, where everything is text.
type layerText string

func textOf(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case layerText:
		return string(v), true
	}
	return "", false
}

func wholeNumber(v any) (int64, error) {
	switch v := v.(type) {
	case int64:
		return v, nil
	case layerText:
		return strconv.ParseInt(string(v), 10, 64)
	}
	return 0, errRefused
}

var (
	hostPattern    = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)
	servicePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	namePattern    = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._:/-]{0,127})?$`)
	envPattern     = regexp.MustCompile(`^([A-Z_][A-Z0-9_]{0,63})?$`)
	clientPattern  = regexp.MustCompile(`^[\x21-\x7e]{0,256}$`)
)

func isHost(v string) bool { return net.ParseIP(v) != nil || hostPattern.MatchString(v) }

func isOptionalPath(v string) bool {
	return v == "" || (filepath.IsAbs(v) && !strings.ContainsRune(v, 0))
}

// isHubURL accepts an https origin, because the issuer is built from it and compared byte for byte, or the empty string.
func isHubURL(v string) bool {
	if v == "" {
		return true
	}
	u, err := url.Parse(v)
	return err == nil && u.Scheme == "https" && isOrigin(u) && v == "https://"+u.Host
}

// isOptionalIssuer accepts an issuer identifier (RFC 8414 section 2): https, without userinfo, query or fragment.
func isOptionalIssuer(v string) bool {
	if v == "" {
		return true
	}
	u, err := url.Parse(v)
	if err != nil || strings.ContainsAny(v, "?#") {
		return false
	}
	origin := *u
	origin.Path, origin.RawPath = "", ""
	return u.Scheme == "https" && isOrigin(&origin) && strings.HasPrefix(v, "https://"+u.Host)
}

// isLaneURL accepts https, http on a loopback literal, and unix: with an absolute path. The last two do not use a network.
func isLaneURL(v string) bool {
	if v == "" {
		return true
	}
	if socket, ok := strings.CutPrefix(v, "unix:"); ok {
		return filepath.IsAbs(socket) && filepath.Clean(socket) == socket
	}
	u, err := url.Parse(v)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Hostname() == "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || (u.Scheme == "http" && ip != nil && ip.IsLoopback())
}

func isOrigin(u *url.URL) bool {
	port := u.Port()
	n, err := strconv.Atoi(port)
	return u.User == nil && u.Path == "" && u.RawQuery == "" && u.Fragment == "" && u.Opaque == "" &&
		isHost(u.Hostname()) && (port == "" && !strings.HasSuffix(u.Host, ":") || err == nil && n > 0 && n < 65536)
}
