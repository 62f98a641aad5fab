package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"companion/adapters/completion/lane"
)

const chatHelp = `/help         this list
/attach FILE  send a text file or an image with the next message
/clear        forget the conversation
/save FILE    write the conversation to FILE, as Markdown
/model        the model and its context
/bye          end (Ctrl-D, too)
Alt-Enter begins a new line. A paste is one message. Ctrl-C stops an answer, and
clears the line.
`

// interactiveChat is a conversation on a terminal, in raw mode: the line editor of golang.org/x/term with its history,
// behind an input that keeps pastes whole.
func (a *app) interactiveChat(ctx context.Context, c *conversation) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in := newChatInput(nil, cancel)
	editor := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{in, a.out}, paint(colour(a.out), bold, "> "))
	resize := func() {
		if width, height, err := term.GetSize(int(a.out.Fd())); err == nil && width > 0 {
			_ = editor.SetSize(width, height)
		}
	}
	var cooked *term.State
	h := hold{
		enter: func() {
			cooked, _ = term.MakeRaw(int(a.in.Fd()))
			_ = print(a.out, "\x1b[?2004h")
			resize()
		},
		leave: func() {
			_ = print(a.out, "\x1b[?2004l")
			if cooked != nil {
				_ = term.Restore(int(a.in.Fd()), cooked)
			}
		},
	}
	release, err := a.holdTerminal(h)
	if err != nil {
		return err
	}
	defer release()
	in.suspend = func() {
		suspend(restoreTerminal, func() {
			a.reenter(h)
			_, _ = editor.Write(nil) // draws the prompt and the line again
		})
	}
	go in.pump(a.in) // ends with the process
	c.out = editor   // which writes the carriage returns of raw mode
	a.sayTo = editor
	defer func() { a.sayTo = nil }()
	if c.lane == lane.Local {
		a.say("Talking to %s on this machine.\n/help lists the commands, Ctrl-D ends.", oneLine(c.model))
	} else {
		a.say("%s\n/help lists the commands, Ctrl-D ends.", c.leaves())
	}
	lines := make(chan string)
	ended := make(chan error, 1)
	ready := make(chan struct{}, 1)
	// The editor's read cannot be interrupted; the process ends with this goroutine still in it.
	go func() {
		for range ready {
			line, err := editor.ReadLine()
			if err != nil {
				ended <- err
				return
			}
			lines <- in.expand(line)
		}
	}()
	for {
		resize()
		ready <- struct{}{}
		select {
		case line := <-lines:
			done, err := a.chatLine(ctx, c, in, line)
			if err != nil || done {
				return err
			}
		case err := <-ended:
			_ = print(editor, "\n")
			if errors.Is(err, io.EOF) && ctx.Err() == nil {
				return nil
			}
			if ctx.Err() != nil {
				return errInterrupted
			}
			return err
		case <-ctx.Done():
			_ = print(editor, "\n")
			return errInterrupted
		}
	}
}

// reenter takes the terminal again after a suspend.
func (a *app) reenter(h hold) {
	heldTerminal.Lock()
	defer heldTerminal.Unlock()
	h.enter()
	heldTerminal.leave = h.leave
}

// chatLine does what one line asks for. Errors of an answer are shown and do not end the conversation: the daemon may be back
// for the next message.
func (a *app) chatLine(ctx context.Context, c *conversation, in *chatInput, line string) (done bool, err error) {
	text := strings.TrimSpace(line)
	command, argument, _ := strings.Cut(text, " ")
	switch command {
	case "":
		return false, nil
	case "/bye", "/exit", "/quit":
		return true, nil
	case "/help", "/?":
		return false, print(c.out, chatHelp)
	case "/clear":
		c.turns, c.attached, c.trimmed = nil, nil, false
		a.say("The conversation is forgotten.")
		return false, nil
	case "/model":
		if c.lane == lane.Local {
			a.say("%s, context of %d tokens.\nTo serve another: `companion use NAME`.", oneLine(c.model), c.context)
		} else {
			a.say("%s, by lane %s", oneLine(c.model), c.lane)
		}
		return false, nil
	case "/attach":
		return false, a.chatAttach(ctx, c, strings.TrimSpace(argument))
	case "/save":
		argument = strings.TrimSpace(argument)
		if argument == "" {
			a.say("/save needs the name of a file")
		} else if err := c.save(argument); err != nil {
			a.say("%s", oneLine(err.Error()))
		} else {
			a.say("Saved to %s.", oneLine(argument))
		}
		return false, nil
	}
	if strings.HasPrefix(line, "/") && !strings.Contains(text, "\n") && !strings.Contains(command[1:], "/") {
		a.say("there is no command %s; /help lists them.\nTo send it as a message, begin with a space.", oneLine(command))
		return false, nil
	}
	answering, stop := context.WithCancel(ctx)
	in.answering(stop)
	before := len(c.turns)
	if err = c.ask(answering, line); err != nil && len(c.turns) == before { // nothing was answered
		err = c.again(answering, line, err)
	}
	in.answering(nil)
	interrupted := answering.Err() != nil
	stop()
	switch {
	case ctx.Err() != nil:
		return true, errInterrupted
	case err != nil && interrupted:
		a.say("(stopped)")
		return false, nil
	case err == nil:
		return false, nil
	}
	f := described(err)
	if f.code == "failed" { // of the terminal
		return true, err
	}
	a.say("%s", plain(f.message))
	if f.hint != "" {
		a.say("%s", f.hint)
	}
	return false, nil
}

// chatAttach is /attach. A file that cannot be attached ends nothing.
func (a *app) chatAttach(ctx context.Context, c *conversation, path string) error {
	if path == "" {
		a.say("/attach needs the name of a file")
		return nil
	}
	if err := c.attach(ctx, path); err != nil {
		if ctx.Err() != nil {
			return errInterrupted
		}
		f := described(err)
		a.say("%s", plain(f.message))
		if f.hint != "" {
			a.say("%s", f.hint)
		}
		return nil
	}
	file := c.attached[len(c.attached)-1]
	a.say("Attached %s, %s. It goes with the next message.", file.name, bytesText(int64(file.size)))
	return nil
}

// chatInput is the terminal's input for the line editor. One goroutine (pump) reads the terminal all the time, also
// while an answer streams, since Ctrl-C and Ctrl-Z are plain bytes in raw mode. It turns a bracketed paste into a short
// placeholder, so that no line of it is taken for a finished message and none is cut.
type chatInput struct {
	end     func() // of the conversation
	suspend func()

	mu         sync.Mutex
	more       *sync.Cond
	raw        []byte // read and not parsed yet
	out        []byte // for the editor
	failed     error  // of the terminal
	paste      []byte // between the brackets
	pasting    bool
	pastes     map[string]string // placeholder: text
	stop       func()            // of the answer that streams; nil: none
	interrupts int               // in a row, at the prompt
}

// newChatInput reads in until it fails: reading a terminal cannot be interrupted.
func newChatInput(in io.Reader, end func()) *chatInput {
	c := &chatInput{end: end, suspend: func() {}, pastes: map[string]string{}}
	c.more = sync.NewCond(&c.mu)
	if in != nil {
		go c.pump(in)
	}
	return c
}

func (c *chatInput) pump(in io.Reader) {
	for {
		buffer := make([]byte, 4096)
		n, err := in.Read(buffer)
		c.feed(buffer[:n], err)
		if err != nil {
			return
		}
	}
}

// feed takes what was read, and does at once what must not wait for the editor.
func (c *chatInput) feed(data []byte, err error) {
	c.mu.Lock()
	c.raw = append(c.raw, data...)
	actions := c.sort()
	c.failed = err
	c.more.Broadcast()
	c.mu.Unlock()
	for _, do := range actions {
		do()
	}
}

// answering tells what Ctrl-C stops; nil: nothing is being answered.
func (c *chatInput) answering(stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop, c.interrupts = stop, 0
}

const (
	pasteStart = "\x1b[200~"
	pasteEnd   = "\x1b[201~"
	newline    = '␊' // shown for a line break that was typed
)

func (c *chatInput) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) == 0 {
		if c.failed != nil {
			return 0, c.failed
		}
		c.more.Wait()
	}
	n := copy(p, c.out)
	c.out = c.out[n:]
	return n, nil
}

// sort moves what was read to the editor or to the paste, and returns what is to be done without the lock.
func (c *chatInput) sort() (actions []func()) {
	for len(c.raw) > 0 {
		if c.pasting {
			before, after, found := strings.Cut(string(c.raw), pasteEnd)
			if !found {
				keep := partial(c.raw, pasteEnd)
				c.paste = append(c.paste, c.raw[:len(c.raw)-keep]...)
				c.raw = append([]byte{}, c.raw[len(c.raw)-keep:]...)
				return actions
			}
			c.paste, c.raw, c.pasting = append(c.paste, before...), []byte(after), false
			c.out = append(c.out, c.placeholder(string(c.paste))...)
			c.paste = nil
			continue
		}
		switch b := c.raw[0]; {
		case b == 3:
			c.raw = c.raw[1:]
			actions = append(actions, c.interrupt())
		case b == 26:
			c.raw = c.raw[1:]
			actions = append(actions, c.suspend)
		case strings.HasPrefix(string(c.raw), pasteStart):
			c.raw, c.pasting = c.raw[len(pasteStart):], true
		case strings.HasPrefix(string(c.raw), "\x1b\r"), strings.HasPrefix(string(c.raw), "\x1b\n"):
			c.raw = c.raw[2:]
			c.out = utf8.AppendRune(c.out, newline)
		case partial(c.raw, pasteStart) == len(c.raw):
			return actions // the rest of the bracket is on its way
		default:
			if c.stop == nil {
				c.interrupts = 0
			}
			c.raw, c.out = c.raw[1:], append(c.out, b)
		}
	}
	return actions
}

// partial is how many bytes at the end of data may begin mark.
func partial(data []byte, mark string) int {
	for n := min(len(data), len(mark)-1); n > 0; n-- {
		if strings.HasPrefix(mark, string(data[len(data)-n:])) {
			return n
		}
	}
	return 0
}

// interrupt is Ctrl-C: it stops an answer; at the prompt it clears the line, and ends at the second time in a row.
func (c *chatInput) interrupt() func() {
	if c.stop != nil {
		return c.stop
	}
	if c.interrupts++; c.interrupts > 1 {
		return c.end
	}
	c.out = append(c.out, 5, 21) // Ctrl-E, Ctrl-U: to the end, erase to the beginning
	return func() {}
}

// placeholder is what the editor shows for a paste. A short one of a single line is shown as it is.
func (c *chatInput) placeholder(text string) string {
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	if utf8.RuneCountInString(text) <= 200 && !strings.ContainsFunc(text, unicode.IsControl) {
		return text
	}
	mark := fmt.Sprintf("[paste %d: %d lines, %d characters]", len(c.pastes)+1, strings.Count(strings.TrimRight(text, "\n"), "\n")+1, utf8.RuneCountInString(text))
	c.pastes[mark] = text
	return mark
}

// expand puts the pastes and the line breaks back into a line.
func (c *chatInput) expand(line string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	line = strings.ReplaceAll(line, string(newline), "\n")
	for mark, text := range c.pastes {
		line = strings.ReplaceAll(line, mark, text)
	}
	return line
}
