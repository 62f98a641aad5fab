package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"companion/adapters/completion"
)

const (
	// longestPrompt bounds what is read from standard input, in bytes; the context is far smaller.
	longestPrompt = 4 << 20
	// defaultMaxTokens ends an answer without --max-tokens; a smaller context counts instead.
	defaultMaxTokens = 1024
)

// chatFlags are those of `chat`.
type chatFlags struct {
	maxTokens, seed   int64
	temperature, topP float64
	system            string
}

func (a *app) chatCommand() *cobra.Command {
	var f chatFlags
	cmd := &cobra.Command{
		Use: "chat [PROMPT]...", Short: "Ask the local model; the answer streams",
		Long: "Ask the local model; the answer streams.\n\n" +
			"  companion chat \"Name three planets.\"\n" +
			"  companion chat \"Summarise this:\" < report.txt      the prompt, then standard input\n" +
			"  companion chat                                     a conversation, on a terminal\n\n" +
			"In a conversation a paste is one message, whatever it holds; Alt-Enter begins a new line; Ctrl-C stops an\n" +
			"answer; /help lists the commands; Ctrl-D ends it.",
		RunE: func(cmd *cobra.Command, given []string) error {
			options, err := f.options(cmd)
			if err != nil {
				return err
			}
			return a.chat(cmd.Context(), given, f.system, options)
		},
	}
	cmd.Flags().Int64Var(&f.maxTokens, "max-tokens", defaultMaxTokens, "end the answer after this many tokens")
	cmd.Flags().StringVar(&f.system, "system", "", "a system `TEXT` that comes before the conversation")
	cmd.Flags().Float64Var(&f.temperature, "temperature", 0, "sampling temperature, 0 to 2 (default: the model's)")
	cmd.Flags().Float64Var(&f.topP, "top-p", 0, "nucleus sampling, above 0 to 1 (default: the model's)")
	cmd.Flags().Int64Var(&f.seed, "seed", 0, "seed of the sampling, for answers that can be repeated")
	a.jsonFlag(cmd)
	return exits(cmd, exitNotRunning, exitUnavailable, exitKeychain)
}

// options checks the flags. Those that were not given leave the choice to the server.
func (f chatFlags) options(cmd *cobra.Command) (completion.Options, error) {
	o := completion.Options{MaxTokens: f.maxTokens}
	changed := cmd.Flags().Changed
	switch {
	case f.maxTokens < 1:
		return o, usageFailure("--max-tokens must be at least 1", "leave it out for the default")
	case f.temperature < 0 || f.temperature > 2:
		return o, usageFailure("--temperature must be a number from 0 to 2", "leave it out for the model's default")
	case changed("top-p") && (f.topP <= 0 || f.topP > 1):
		return o, usageFailure("--top-p must be a number above 0 and up to 1", "leave it out for the model's default")
	}
	if !changed("max-tokens") {
		o.MaxTokens = 0
	}
	if changed("temperature") {
		o.Temperature = &f.temperature
	}
	if changed("top-p") {
		o.TopP = &f.topP
	}
	if changed("seed") {
		o.Seed = &f.seed
	}
	return o, nil
}

func (a *app) chat(ctx context.Context, given []string, system string, options completion.Options) error {
	prompt := strings.Join(given, " ")
	if len(given) > 0 && strings.TrimSpace(prompt) == "" {
		return noPrompt()
	}
	interactive := len(given) == 0 && isTerminal(a.in)
	if interactive && a.json {
		return usageFailure("--json needs a prompt", "companion chat --json \"your question\"")
	}
	d, err := a.openDoor(ctx)
	if err != nil {
		return err
	}
	client, err := d.client()
	if err != nil {
		return err
	}
	defer client.Close()
	served := contextOf(d.status)
	if options.MaxTokens == 0 {
		options.MaxTokens = min(defaultMaxTokens, int64(served))
	}
	c := &conversation{app: a, client: client, options: options, context: served, model: d.status.Model.Name, out: a.out}
	if system != "" {
		c.system = []completion.Message{{Role: "system", Content: system}}
	}
	if interactive {
		return a.interactiveChat(ctx, c)
	}
	if !isTerminal(a.in) {
		if prompt, err = joinInput(prompt, a.in); err != nil {
			return err
		}
	}
	return c.ask(ctx, prompt)
}

func noPrompt() error {
	return usageFailure("there is no prompt", "companion chat \"your question\"")
}

// joinInput joins the prompt and standard input, as `llm`, `gh` and their kind do. Without a prompt standard input is the
// prompt.
func joinInput(prompt string, in io.Reader) (string, error) {
	input, err := io.ReadAll(io.LimitReader(in, longestPrompt+1))
	switch {
	case errors.Is(err, syscall.EBADF), errors.Is(err, fs.ErrClosed): // closed by the caller: nothing to join
		input = nil
	case err != nil:
		return "", fmt.Errorf("reading the prompt: %w", err)
	case len(input) > longestPrompt:
		return "", usageFailure(fmt.Sprintf("the prompt is longer than %d MiB", longestPrompt>>20), "the model's context, model.context, is far smaller")
	}
	text := strings.TrimSpace(string(input))
	switch {
	case text == "" && strings.TrimSpace(prompt) == "":
		return "", noPrompt()
	case text == "":
		return prompt, nil
	case prompt == "":
		return string(input), nil
	}
	return prompt + "\n\n" + string(input), nil
}

// conversation keeps the turns so far.
type conversation struct {
	app     *app
	client  *completion.Client
	options completion.Options
	context int // tokens, as configured
	model   string
	out     io.Writer
	system  []completion.Message
	turns   []completion.Message
	trimmed bool // it was said that old turns leave
}

// chatResult is the answer under --json.
type chatResult struct {
	Answer           string  `json:"answer"`
	Model            string  `json:"model"`
	Truncated        bool    `json:"truncated"`
	PromptTokens     int64   `json:"promptTokens"`
	CompletionTokens int64   `json:"completionTokens"`
	FirstToken       float64 `json:"firstTokenSeconds"`
	Seconds          float64 `json:"seconds"`
}

// ask streams the answer to one more turn. What came of an answer that was interrupted stays in the conversation.
func (c *conversation) ask(ctx context.Context, prompt string) error {
	c.turns = append(c.turns, completion.Message{Role: "user", Content: prompt})
	terminal := isTerminal(c.app.out)
	began, first := time.Now(), time.Duration(0)
	var said strings.Builder
	answer, err := c.fit(ctx, func(text string) error {
		if first == 0 {
			first = time.Since(began)
		}
		said.WriteString(text)
		if c.app.json {
			return nil
		}
		if terminal {
			text = plain(text)
		}
		return print(c.out, text)
	})
	if said.Len() > 0 && !c.app.json {
		if endErr := print(c.out, "\n"); err == nil {
			err = endErr
		}
	}
	if err != nil {
		if said.Len() > 0 {
			c.turns = append(c.turns, completion.Message{Role: "assistant", Content: said.String()})
		} else {
			c.turns = c.turns[:len(c.turns)-1]
		}
		return err
	}
	c.turns = append(c.turns, completion.Message{Role: "assistant", Content: answer.Text})
	if c.app.json {
		return c.app.printJSON(chatResult{answer.Text, answer.Model, answer.Truncated, answer.PromptTokens, answer.CompletionTokens,
			first.Seconds(), time.Since(began).Seconds()})
	}
	if answer.Truncated {
		c.app.say("%s", c.truncation(answer))
	}
	return nil
}

// truncation says which of the two bounds ended the answer.
func (c *conversation) truncation(answer completion.Answer) string {
	if answer.CompletionTokens == 0 || answer.CompletionTokens >= c.options.MaxTokens {
		return fmt.Sprintf("(the answer ended at --max-tokens %d)", c.options.MaxTokens)
	}
	return fmt.Sprintf("(the answer ended at the %d-token context, model.context)", c.context)
}

// fit asks, and drops the oldest turns while the conversation does not fit the model's context.
func (c *conversation) fit(ctx context.Context, onText func(string) error) (completion.Answer, error) {
	for {
		answer, err := c.client.Chat(ctx, append(append([]completion.Message{}, c.system...), c.turns...), c.options, onText)
		var refused *completion.Error
		if !errors.As(err, &refused) || !refused.TooLong() {
			return answer, err
		}
		if len(c.turns) == 1 {
			return answer, &failure{code: refused.Code, exit: exitFailed, err: err,
				message: fmt.Sprintf("the prompt is too long for the %d-token context", c.context), hint: "shorten it, or raise model.context"}
		}
		// A question leaves together with its answer.
		drop := 1
		if c.turns[1].Role == "assistant" && len(c.turns) > 2 {
			drop = 2
		}
		c.turns = append([]completion.Message{}, c.turns[drop:]...)
		if !c.trimmed {
			c.trimmed = true
			c.app.say("(the conversation is longer than the %d-token context; its oldest messages are left out from here on)", c.context)
		}
	}
}

// save writes the conversation as Markdown to a file that does not exist yet, with mode 0600.
func (c *conversation) save(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("saving the conversation: %w", err)
	}
	var b strings.Builder
	for _, turn := range append(append([]completion.Message{}, c.system...), c.turns...) {
		fmt.Fprintf(&b, "## %s\n\n%s\n\n", turn.Role, turn.Content)
	}
	_, err = file.WriteString(b.String())
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("saving the conversation: %w", err)
	}
	return nil
}
