package messages

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// T12, J4: no verb, encoder or log field shows the bytes, alone or inside another value.
func TestSecretShowsNothing(t *testing.T) {
	const canary = "canary-bytes"
	secret := NewSecret(canary)
	holder := struct {
		S Secret
		P *Secret
		M map[string]Secret
	}{secret, &secret, map[string]Secret{"k": secret}}
	var shown []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		shown = append(shown, fmt.Sprintf(verb, secret), fmt.Sprintf(verb, &secret), fmt.Sprintf(verb, holder))
	}
	encoded, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	shown = append(shown, string(encoded))
	core, logs := observer.New(zap.DebugLevel)
	zap.New(core).Info("event", zap.Any("secret", secret), zap.Any("holder", holder), zap.Stringer("s", secret))
	shown = append(shown, fmt.Sprint(logs.All()[0].ContextMap()))
	for _, text := range shown {
		if strings.Contains(text, canary) || strings.Contains(text, fmt.Sprintf("%x", canary)) {
			t.Errorf("got %s, want no byte of the secret", text)
		}
	}
	if secret.Reveal() != canary || secret.IsZero() || !(Secret{}).IsZero() {
		t.Errorf("got Reveal %q, IsZero %t; want %q, false, and true for the zero Secret", secret.Reveal(), secret.IsZero(), canary)
	}
	if err := json.Unmarshal([]byte(`"x"`), &secret); err == nil {
		t.Error("Unmarshal: got no error, want one: a secret cannot be decoded")
	}
}
