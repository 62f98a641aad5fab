package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"companion/adapters/completion"
)

// longestPrompt bounds what is read from standard input; the context is far smaller.
const longestPrompt = 4 << 20

func (a *app) chatCommand() *cobra.Command {
	var maxTokens int64
	cmd := &cobra.Command{
		Use: "chat [PROMPT]...", Short: "Ask the local model; the answer streams",
		Long: "Ask the local model; the answer streams. Without a prompt, standard input is the prompt; on a terminal\n" +
			"it is a conversation, which an empty line or Ctrl-D ends.",
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 && strings.TrimSpace(strings.Join(given, "")) == "" {
				return noPrompt()
			}
			d, err := a.openDoor(cmd.Context())
			if err != nil {
				return err
			}
			client, err := d.client()
			if err != nil {
				return err
			}
			defer client.Close()
			c := &conversation{app: a, client: client, options: completion.Options{MaxTokens: maxTokens}}
			switch {
			case len(given) > 0:
				return c.ask(cmd.Context(), strings.Join(given, " "))
			case isTerminal(a.in):
				return c.interactive(cmd.Context(), d.status.Model.Name)
			}
			prompt, err := readPrompt(a.in)
			if err != nil {
				return err
			}
			return c.ask(cmd.Context(), prompt)
		},
	}
	cmd.Flags().Int64Var(&maxTokens, "max-tokens", 1024, "end the answer after this many tokens")
	return exits(cmd, exitNotRunning, exitUnavailable, exitKeychain)
}

func noPrompt() error {
	return &failure{code: "usage", message: "there is no prompt", hint: "companion chat \"your question\"", exit: exitUsage}
}

// readPrompt reads a whole prompt; one that would have to be cut is refused.
func readPrompt(in io.Reader) (string, error) {
	prompt, err := io.ReadAll(io.LimitReader(in, longestPrompt+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("reading the prompt: %w", err)
	case len(prompt) > longestPrompt:
		return "", &failure{code: "usage", message: fmt.Sprintf("the prompt is longer than %d MiB", longestPrompt>>20),
			hint: "the model's context, model.context, is far smaller", exit: exitUsage}
	case strings.TrimSpace(string(prompt)) == "":
		return "", noPrompt()
	}
	return string(prompt), nil
}

// conversation keeps the turns so far.
type conversation struct {
	app     *app
	client  *completion.Client
	options completion.Options
	turns   []completion.Message
}

// ask streams the answer to one more turn.
func (c *conversation) ask(ctx context.Context, prompt string) error {
	turns := append(c.turns, completion.Message{Role: "user", Content: prompt})
	answer, err := c.client.Chat(ctx, turns, c.options, func(text string) error {
		if isTerminal(c.app.out) {
			text = plain(text)
		}
		return print(c.app.out, text)
	})
	if endErr := print(c.app.out, "\n"); err == nil {
		err = endErr
	}
	if err != nil {
		return err
	}
	if answer.Truncated {
		c.app.say("(the answer was ended at --max-tokens or at the model's context)")
	}
	c.turns = append(turns, completion.Message{Role: "assistant", Content: answer.Text})
	return nil
}

func (c *conversation) interactive(ctx context.Context, model string) error {
	c.app.say("Talking to %s on this machine. An empty line or Ctrl-D ends it.", plain(model))
	lines := make(chan string)
	ended := make(chan error, 1)
	// Reading a terminal cannot be interrupted; the process ends with this goroutine still in it.
	go func() {
		scanner := bufio.NewScanner(c.app.in)
		scanner.Buffer(nil, longestPrompt)
		for scanner.Scan() {
			lines <- scanner.Text()
		}
		ended <- scanner.Err()
	}()
	for {
		if err := print(c.app.out, paint(colour(c.app.out), bold, "> ")); err != nil {
			return err
		}
		select {
		case line := <-lines:
			if strings.TrimSpace(line) == "" {
				return nil
			}
			var busy *completion.Error
			if err := c.ask(ctx, line); errors.As(err, &busy) && busy.Busy() {
				c.app.say("%s", plain(busy.Error()))
			} else if err != nil {
				return err
			}
		case err := <-ended:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
