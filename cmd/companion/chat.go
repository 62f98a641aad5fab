package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"companion/adapters/completion"
	"companion/adapters/completion/lane"
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
	lane, consentID   string
	private, plain    bool
	attach            []string
}

func (a *app) chatCommand() *cobra.Command {
	var f chatFlags
	cmd := &cobra.Command{
		Use: "chat [PROMPT]...", Short: "Ask the local model; the answer streams",
		Long: "Ask the local model; the answer streams.\n\n" +
			"  companion chat \"Name three planets.\"\n" +
			"  companion chat \"Summarise this:\" < report.txt     the prompt, then the file\n" +
			"  companion chat --attach main.go \"Explain this.\"   a text file, or an image\n" +
			"  companion chat                                    a conversation\n\n" +
			"In a conversation a paste is one message, whatever it holds; Alt-Enter begins a new line; Ctrl-C stops an\n" +
			"answer; /help lists the commands; Ctrl-D ends it. Markdown is rendered on a terminal, unless --plain or\n" +
			"NO_COLOR says otherwise, and never elsewhere.\n\n" +
			"The local model answers. Another lane is used only when --lane names it. The text counts as private unless\n" +
			"--private=false, and private text needs the owner's --consent-id there.",
		RunE: func(cmd *cobra.Command, given []string) error {
			options, err := f.options(cmd)
			if err != nil {
				return err
			}
			return a.chat(cmd.Context(), given, f, options)
		},
	}
	cmd.Flags().Int64Var(&f.maxTokens, "max-tokens", defaultMaxTokens, "end the answer after this many tokens")
	cmd.Flags().StringVar(&f.system, "system", "", "a system `TEXT` that comes before the conversation")
	cmd.Flags().Float64Var(&f.temperature, "temperature", 0, "sampling temperature, 0 to 2 (default: the model's)")
	cmd.Flags().Float64Var(&f.topP, "top-p", 0, "nucleus sampling, above 0 to 1 (default: the model's)")
	cmd.Flags().Int64Var(&f.seed, "seed", 0, "seed of the sampling, for answers that can be repeated")
	cmd.Flags().StringArrayVar(&f.attach, "attach", nil, "a text `FILE` or an image that goes with the first message; may be repeated")
	cmd.Flags().BoolVar(&f.plain, "plain", false, "do not render Markdown")
	cmd.Flags().StringVar(&f.lane, "lane", "", "`LANE`: local, self_hosted, enterprise, openrouter, direct_provider")
	cmd.Flags().BoolVar(&f.private, "private", true, "the text is private")
	cmd.Flags().StringVar(&f.consentID, "consent-id", "", "the owner's consent to send private text by a managed lane")
	a.jsonFlag(cmd)
	return exits(cmd, exitNotRunning, exitUnavailable, exitKeychain, exitPolicy)
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

func (a *app) chat(ctx context.Context, given []string, f chatFlags, options completion.Options) error {
	prompt := strings.Join(given, " ")
	if len(given) > 0 && strings.TrimSpace(prompt) == "" {
		return noPrompt()
	}
	interactive := len(given) == 0 && isTerminal(a.in)
	if interactive && a.json {
		return usageFailure("--json needs a prompt", "companion chat --json \"your question\"")
	}
	c, err := a.conversation(ctx, f)
	if err != nil {
		return err
	}
	defer c.client.Close()
	c.options, c.plain = options, f.plain || !colour(a.out)
	if c.options.MaxTokens == 0 {
		c.options.MaxTokens = min(defaultMaxTokens, int64(c.context))
	}
	if f.system != "" {
		c.system = []completion.Message{{Role: "system", Content: f.system}}
	}
	for _, path := range f.attach {
		if err := c.attach(ctx, path); err != nil {
			return err
		}
	}
	if interactive {
		return a.interactiveChat(ctx, c)
	}
	if !isTerminal(a.in) {
		if prompt, err = joinInput(prompt, a.in); err != nil {
			return err
		}
	}
	if c.lane != lane.Local && !a.json {
		a.say("%s", c.leaves())
	}
	return c.ask(ctx, prompt)
}

// conversation opens the lane that was asked for, or local. Nothing falls through to another lane (E5).
func (a *app) conversation(ctx context.Context, f chatFlags) (*conversation, error) {
	l := lane.Local
	if f.lane != "" {
		l = lane.Lane(f.lane)
		if !l.Valid() {
			return nil, noLane(f.lane)
		}
	}
	if l != lane.Local {
		s, _, err := a.load()
		if err != nil {
			return nil, err
		}
		if err := consented(s, l, f.private, f.consentID); err != nil {
			return nil, err
		}
		at := configured(s, l)
		client, model, err := remoteClient(s, l, func() error { return a.stillConsented(l, at, f.private, f.consentID) })
		if err != nil {
			return nil, err
		}
		return &conversation{app: a, client: client, context: remoteContext, model: model, lane: l, out: a.out}, nil
	}
	d, err := a.openDoor(ctx)
	if err != nil {
		return nil, err
	}
	client, err := d.client(nil)
	if err != nil {
		return nil, err
	}
	return &conversation{app: a, client: client, context: contextOf(d.status), model: d.status.Model.Name, lane: l,
		control: d.status.Model.ControlTokens, out: a.out, reopen: func(ctx context.Context) (*conversation, error) { return a.conversation(ctx, f) }}, nil
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
	app      *app
	client   *completion.Client
	options  completion.Options
	context  int // tokens, as configured
	model    string
	lane     lane.Lane
	control  []string // tokens of the model's vocabulary that control a chat
	plain    bool     // Markdown is not rendered
	out      io.Writer
	system   []completion.Message
	turns    []completion.Message
	attached []attachment // for the next message
	trimmed  bool         // it was said that old turns leave
	// reopen finds the daemon again, which has another address and token after a restart; nil: another lane.
	reopen func(context.Context) (*conversation, error)
}

// again asks once more at the daemon that runs now, where the answer could not begin because another one did before.
func (c *conversation) again(ctx context.Context, prompt string, err error) error {
	var asked *completion.Error
	var refused *failure
	stale := errors.As(err, &asked) && (asked.Status == 0 && asked.Code == "unreachable" || asked.Status == http.StatusUnauthorized) ||
		errors.As(err, &refused) && (refused.code == "foreign_listener" || refused.exit == exitNotRunning)
	if !stale || c.reopen == nil || ctx.Err() != nil {
		return err
	}
	fresh, reopenErr := c.reopen(ctx)
	if reopenErr != nil {
		return reopenErr
	}
	c.client.Close()
	c.client, c.context, c.model, c.control = fresh.client, fresh.context, fresh.model, fresh.control
	return c.ask(ctx, prompt)
}

// leaves says where the text goes when it leaves this machine.
func (c *conversation) leaves() string {
	text := fmt.Sprintf("Lane %s: what you send leaves this machine, for %s.", c.lane, oneLine(c.model))
	if c.lane.Metered() {
		text += " Its use is metered."
	}
	return text
}

// chatResult is the answer under --json.
type chatResult struct {
	Answer           string    `json:"answer"`
	Model            string    `json:"model"`
	Lane             lane.Lane `json:"lane"`
	Truncated        bool      `json:"truncated"`
	PromptTokens     int64     `json:"promptTokens"`
	CompletionTokens int64     `json:"completionTokens"`
	FirstToken       float64   `json:"firstTokenSeconds"`
	Seconds          float64   `json:"seconds"`
}

// ask streams the answer to one more turn. What came of an answer that was interrupted stays in the conversation.
func (c *conversation) ask(ctx context.Context, prompt string) error {
	c.turns = append(c.turns, c.message(prompt))
	began, first := time.Now(), time.Duration(0)
	var said strings.Builder
	show, shown := c.shower()
	answer, err := c.fit(ctx, func(text string) error {
		if first == 0 {
			first = time.Since(began)
		}
		said.WriteString(text)
		if c.app.json {
			return nil
		}
		return show(text)
	})
	if said.Len() > 0 && !c.app.json {
		if endErr := errors.Join(shown(), print(c.out, "\n")); err == nil {
			err = endErr
		}
	}
	if err != nil {
		if said.Len() > 0 {
			c.attached = nil
			c.turns = append(c.turns, completion.Message{Role: "assistant", Content: said.String()})
		} else {
			c.turns = c.turns[:len(c.turns)-1]
		}
		return err
	}
	c.attached = nil
	c.turns = append(c.turns, completion.Message{Role: "assistant", Content: answer.Text})
	if c.app.json {
		return c.app.printJSON(chatResult{answer.Text, answer.Model, c.lane, answer.Truncated, answer.PromptTokens, answer.CompletionTokens,
			first.Seconds(), time.Since(began).Seconds()})
	}
	if answer.Truncated {
		c.app.say("%s", c.truncation(answer))
	}
	return nil
}

// shower returns what prints the pieces of an answer, and what prints the rest at its end.
func (c *conversation) shower() (show func(string) error, end func() error) {
	none := func() error { return nil }
	out := func(text string) error { return print(c.out, text) }
	switch {
	case !isTerminal(c.app.out):
		return out, none
	case c.plain:
		return func(text string) error { return out(plain(text)) }, none
	}
	m := &markdown{width: max(columns(c.app.out), 20), out: out}
	return func(text string) error { return m.Write(plain(text)) }, m.Close
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
	whole := c.turns
	for {
		answer, err := c.client.Chat(ctx, append(append([]completion.Message{}, c.system...), c.turns...), c.options, onText)
		var refused *completion.Error
		if !errors.As(err, &refused) || !refused.TooLong() {
			return answer, err
		}
		if len(c.turns) == 1 { // the last message alone is too long: the others did nothing to it
			c.turns = whole
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
		if n := len(turn.Images); n > 0 {
			fmt.Fprintf(&b, "(%d images, not saved)\n\n", n)
		}
	}
	_, err = file.WriteString(b.String())
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("saving the conversation: %w", err)
	}
	return nil
}
