package main

import (
	"errors"
	"strings"
	"testing"
)

// A prompt is sent whole or not at all.
func TestReadPrompt(t *testing.T) {
	for name, row := range map[string]struct{ in, says string }{
		"longest":  {strings.Repeat("a", longestPrompt), ""},
		"too long": {strings.Repeat("a", longestPrompt+1), "the prompt is longer than 4 MiB"},
		"nothing":  {" \n", "there is no prompt"},
	} {
		got, err := readPrompt(strings.NewReader(row.in))
		var f *failure
		switch {
		case row.says == "":
			if err != nil || got != row.in {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
		case !errors.As(err, &f) || f.message != row.says || f.exit != exitUsage || got != "":
			t.Errorf("%s: %v", name, err)
		}
	}
}
