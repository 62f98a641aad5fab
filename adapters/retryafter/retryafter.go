// Package retryafter reads the Retry-After header (RFC 9110, section 10.2.3).
package retryafter

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// longest bounds what is returned: a server that asks for more is treated as if it asked for this.
const longest = 24 * time.Hour

// Of returns how long h asks to wait after now, from a number of seconds or an HTTP date. It is zero if
// there is no such header, if it cannot be read, or if the date has passed.
func Of(h http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, longest)
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), longest)
}
