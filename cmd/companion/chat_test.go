package main

import (
	"errors"
	"io"
	"strings"
	"testing"

	"golang.org/x/term"
)

// A prompt is sent whole or not at all, and standard input is never dropped.
func TestJoinInput(t *testing.T) {
	for name, row := range map[string]struct{ prompt, in, want, says string }{
		"longest":          {"", strings.Repeat("a", longestPrompt), strings.Repeat("a", longestPrompt), ""},
		"too long":         {"", strings.Repeat("a", longestPrompt+1), "", "the prompt is longer than 4 MiB"},
		"nothing":          {"", " \n", "", "there is no prompt"},
		"prompt alone":     {"Hello", "", "Hello", ""},
		"prompt and input": {"Summarise:", "a\nb\n", "Summarise:\n\na\nb\n", ""},
	} {
		got, err := joinInput(row.prompt, strings.NewReader(row.in))
		var f *failure
		switch {
		case row.says == "":
			if err != nil || got != row.want {
				t.Errorf("%s: got %d bytes, %v; want %d bytes", name, len(got), err, len(row.want))
			}
		case !errors.As(err, &f) || f.message != row.says || f.exit != exitUsage || got != "":
			t.Errorf("%s: got %v, want %q", name, err, row.says)
		}
	}
}

// A paste is one message, whatever it holds and however its bytes arrive; typed text around it stays.
func TestPasteIsOneMessage(t *testing.T) {
	long := "first paragraph\n\nsecond\tparagraph; rm -rf ~\n" + strings.Repeat("x", 9000)
	for _, size := range []int{1, 2, 3, 7, 4096} {
		stream := "Explain: " + pasteStart + strings.ReplaceAll(long, "\n", "\r") + pasteEnd + " please\x1b\rnow\r/bye\r"
		in := newChatInput(&pieces{strings.NewReader(stream), size}, func() { t.Error("the conversation ended") })
		editor := term.NewTerminal(struct {
			io.Reader
			io.Writer
		}{in, io.Discard}, "> ")
		var got []string
		for range 2 {
			line, err := editor.ReadLine()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, in.expand(line))
		}
		if want := "Explain: " + long + " please\nnow"; got[0] != want || got[1] != "/bye" {
			t.Errorf("in pieces of %d: got %.60q… (%d bytes) and %q, want %.60q… (%d bytes) and /bye", size, got[0], len(got[0]), got[1], want, len(want))
		}
	}
}

// Arrow keys, history and Ctrl-C reach the editor as keys, not as text.
func TestLineEditing(t *testing.T) {
	for name, row := range map[string]struct{ keys, want string }{
		"left":           {"ac\x1b[Db\r", "abc"},
		"history":        {"one\r\x1b[A!\r", "one!"},
		"Ctrl-C clears":  {"nonsense\x03good\r", "good"},
		"escape, letter": {"a\x1b[Cb\r", "ab"},
	} {
		in := newChatInput(strings.NewReader(row.keys), func() { t.Errorf("%s: the conversation ended", name) })
		editor := term.NewTerminal(struct {
			io.Reader
			io.Writer
		}{in, io.Discard}, "> ")
		last := ""
		for {
			line, err := editor.ReadLine()
			if err != nil {
				break
			}
			last = line
		}
		if last != row.want {
			t.Errorf("%s: got %q, want %q", name, last, row.want)
		}
	}
}

// Ctrl-C stops an answer; at the prompt the second in a row ends the conversation.
func TestInterrupt(t *testing.T) {
	stopped, ended := 0, 0
	in := newChatInput(nil, func() { ended++ })
	in.answering(func() { stopped++ })
	in.feed([]byte{3}, nil) // no editor reads meanwhile
	in.answering(nil)
	in.feed([]byte("\x03x\x03"), nil)
	if stopped != 1 || ended != 0 {
		t.Errorf("got %d stops and %d ends, want 1 and 0", stopped, ended)
	}
	in.feed([]byte{3}, nil)
	if ended != 1 {
		t.Errorf("got %d ends, want 1", ended)
	}
}

// pieces gives a reader's bytes in pieces of one size.
type pieces struct {
	io.Reader
	size int
}

func (p *pieces) Read(b []byte) (int, error) { return p.Reader.Read(b[:min(len(b), p.size)]) }
