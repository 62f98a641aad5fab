package keychain

import (
	"errors"
	"testing"

	"github.com/godbus/dbus/v5"

	"companion/messages"
)

// K7: a bus that refuses the message with the value says that the value is too large. The same error for another call, such as one
// connection too many, says that the keychain is not available.
func TestLimitsExceeded(t *testing.T) {
	exceeded := dbus.Error{Name: "org.freedesktop.DBus.Error.LimitsExceeded"}
	for name, row := range map[string]struct {
		err  error
		want messages.Reason
	}{
		"the value":          {storing(exceeded), messages.ReasonSecretTooLarge},
		"another call":       {exceeded, messages.ReasonKeychainUnavailable},
		"another connection": {&exceeded, messages.ReasonKeychainUnavailable},
		"storing, no reply":  {storing(dbus.Error{Name: "org.freedesktop.DBus.Error.NoReply"}), messages.ReasonKeychainTimeout},
		"storing, other":     {storing(errors.New("other")), messages.ReasonKeychainUnavailable},
	} {
		if got := ReasonOf(wrap("set", AccessToken, reasoned(t.Context(), row.err))); got != row.want {
			t.Errorf("%s: got %s, want %s", name, got, row.want)
		}
	}
}
