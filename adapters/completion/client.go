// Package completion is an OpenAI API client (E5). It reaches the local lane through the guarded endpoint like
// any other program, and another lane at the base URL or Unix socket that the configuration names.
//
// A Client sends text to exactly one server: it follows no redirect, reads no OPENAI_ variable, sends no data
// about this machine, and has no fallback. Its keys are messages.Secret and appear in no
// error. Limits bound every answer in time and size.
package completion

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/shared"

	"companion/messages"
)

// Target is the server of a Client.
type Target struct {
	BaseURL string // such as http://127.0.0.1:43121/v1
	Socket  string // a Unix socket to dial instead of BaseURL's host; empty: none
	Key     messages.Secret
	Model   string // empty: the one that is served
	// Local says that the target is our endpoint, whose error texts come from a fixed table (L10). The texts of
	// other servers are not shown: they may quote the key or the note.
	Local bool
	// Confirm checks each new connection before a byte is sent on it; nil: no check. A port on a loopback address can
	// be another program's by now.
	Confirm func(context.Context, net.Conn) error
	// Allow is called before each request, also before a repeated one (E4); nil: no check. Its error ends the call.
	Allow func() error
	// Limits bound what the server can cost; the zero value takes the defaults.
	Limits Limits
}

// Client is safe for concurrent use.
type Client struct {
	target      Target
	http        *http.Client
	chat        openai.ChatCompletionService
	completions openai.CompletionService
}

// Message is one turn of a chat. Role is system, user or assistant. Images are data: URLs that come after the text of a
// user's turn.
type Message struct {
	Role    string
	Content string
	Images  []string
}

// Options of one request; the zero value leaves everything to the server.
type Options struct {
	MaxTokens   int64
	Temperature *float64
	TopP        *float64
	Seed        *int64
	// SchemaName and Schema ask for JSON that fits a schema, strictly.
	SchemaName string
	Schema     any
}

// Answer is the result of a request. Truncated means that the answer reached MaxTokens or the context. The token counts
// come from the server; zero means that it sent none. SentBytes counts the request bodies of all attempts; it is set
// also with an error.
type Answer struct {
	Text             string
	Model            string
	Truncated        bool
	PromptTokens     int64
	CompletionTokens int64
	SentBytes        int64
}

// New makes a client of one target.
func New(t Target) *Client {
	limits := t.Limits.withDefaults()
	transport := &bounded{next: newTransport(t, limits), limits: limits}
	c := &Client{target: t, http: &http.Client{Transport: transport, CheckRedirect: refuseRedirect}}
	// openai.NewClient would take keys, organisation and headers from the environment; the services take none.
	options := []option.RequestOption{
		option.WithBaseURL(t.BaseURL), option.WithHTTPClient(c.http), option.WithMaxRetries(0),
		option.WithHeader("User-Agent", "companion"), option.WithMiddleware(withoutTelemetry),
	}
	if !t.Key.IsZero() {
		options = append(options, option.WithAPIKey(t.Key.Reveal()))
	}
	c.chat = openai.NewChatCompletionService(options...)
	c.completions = openai.NewCompletionService(options...)
	return c
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

var errRedirect = errors.New("the server answered with a redirect, which is not followed")

func refuseRedirect(*http.Request, []*http.Request) error { return errRedirect }

// withoutTelemetry drops the library's headers about system, architecture and versions.
func withoutTelemetry(r *http.Request, next option.MiddlewareNext) (*http.Response, error) {
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Stainless-") {
			r.Header.Del(name)
		}
	}
	return next(r)
}

// Chat streams an answer: onText gets each piece as it arrives, on this goroutine; its error ends
// the request. The error is an *Error, onText's, or ctx's.
func (c *Client) Chat(ctx context.Context, turns []Message, o Options, onText func(string) error) (Answer, error) {
	if err := c.allowed(); err != nil {
		return Answer{}, err
	}
	params := c.params(turns, o)
	if c.target.Local { // other servers may not know the option
		params.StreamOptions.IncludeUsage = openai.Bool(true)
	}
	stream := c.chat.NewStreaming(ctx, params)
	defer func() { _ = stream.Close() }()
	var answer Answer
	var text strings.Builder
	finished := false
	for stream.Next() {
		chunk := stream.Current()
		answer.Model = chunk.Model
		if chunk.Usage.TotalTokens > 0 {
			answer.PromptTokens, answer.CompletionTokens = chunk.Usage.PromptTokens, chunk.Usage.CompletionTokens
		}
		for _, choice := range chunk.Choices {
			answer.Truncated = answer.Truncated || choice.FinishReason == "length"
			finished = finished || choice.FinishReason != ""
			if choice.Delta.Content == "" {
				continue
			}
			text.WriteString(choice.Delta.Content)
			if err := onText(choice.Delta.Content); err != nil {
				return Answer{}, err
			}
		}
	}
	if err := stream.Err(); err != nil {
		return Answer{}, c.explain(ctx, err)
	}
	if !finished {
		return Answer{}, c.brokeOff()
	}
	answer.Text = text.String()
	return answer, nil
}

// Ask returns a whole answer. It repeats the request only after a busy answer (429, 503), honours Retry-After, and stops
// when ctx ends or patience is over.
func (c *Client) Ask(ctx context.Context, turns []Message, o Options, patience time.Duration) (Answer, error) {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = 200*time.Millisecond, 5*time.Second
	ctx, sent := countSent(ctx)
	answer, err := backoff.Retry(ctx, func() (Answer, error) {
		if err := c.allowed(); err != nil {
			return Answer{}, backoff.Permanent(err)
		}
		completion, err := c.chat.New(ctx, c.params(turns, o))
		if err != nil {
			explained := c.explain(ctx, err)
			if busy := new(Error); errors.As(explained, &busy) && busy.Busy() {
				if err := wait(ctx, busy.RetryAfter); err != nil {
					return Answer{}, backoff.Permanent(err)
				}
				return Answer{}, explained
			}
			return Answer{}, backoff.Permanent(explained)
		}
		if len(completion.Choices) != 1 {
			return Answer{}, backoff.Permanent(c.malformed("the answer holds no choice"))
		}
		choice := completion.Choices[0]
		return Answer{
			Text: choice.Message.Content, Model: completion.Model, Truncated: choice.FinishReason == "length",
			PromptTokens: completion.Usage.PromptTokens, CompletionTokens: completion.Usage.CompletionTokens,
		}, nil
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(patience))
	answer.SentBytes = sent.Load()
	return answer, err
}

func (c *Client) allowed() error {
	if c.target.Allow == nil {
		return nil
	}
	return c.target.Allow()
}

// Complete continues a prompt, without chat turns.
func (c *Client) Complete(ctx context.Context, prompt string, o Options) (Answer, error) {
	if err := c.allowed(); err != nil {
		return Answer{}, err
	}
	p := openai.CompletionNewParams{
		Model:  openai.CompletionNewParamsModel(c.target.Model),
		Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String(prompt)},
	}
	if o.MaxTokens > 0 {
		p.MaxTokens = openai.Int(o.MaxTokens)
	}
	if o.Temperature != nil {
		p.Temperature = openai.Float(*o.Temperature)
	}
	if o.Seed != nil {
		p.Seed = openai.Int(*o.Seed)
	}
	completion, err := c.completions.New(ctx, p)
	if err != nil {
		return Answer{}, c.explain(ctx, err)
	}
	if len(completion.Choices) != 1 {
		return Answer{}, c.malformed("the answer holds no choice")
	}
	choice := completion.Choices[0]
	return Answer{Text: choice.Text, Model: completion.Model, Truncated: choice.FinishReason == "length"}, nil
}

func (c *Client) params(turns []Message, o Options) openai.ChatCompletionNewParams {
	p := openai.ChatCompletionNewParams{Model: c.target.Model}
	for _, turn := range turns {
		switch turn.Role {
		case "system":
			p.Messages = append(p.Messages, openai.SystemMessage(turn.Content))
		case "assistant":
			p.Messages = append(p.Messages, openai.AssistantMessage(turn.Content))
		default:
			p.Messages = append(p.Messages, userMessage(turn))
		}
	}
	if o.MaxTokens > 0 {
		p.MaxCompletionTokens = openai.Int(o.MaxTokens)
	}
	if o.Temperature != nil {
		p.Temperature = openai.Float(*o.Temperature)
	}
	if o.TopP != nil {
		p.TopP = openai.Float(*o.TopP)
	}
	if o.Seed != nil {
		p.Seed = openai.Int(*o.Seed)
	}
	if o.Schema != nil {
		p.ResponseFormat.OfJSONSchema = &shared.ResponseFormatJSONSchemaParam{
			JSONSchema: shared.ResponseFormatJSONSchemaJSONSchemaParam{
				Name: o.SchemaName, Schema: o.Schema, Strict: param.NewOpt(true),
			},
		}
	}
	return p
}

// userMessage has parts only where there are images: some servers take nothing but a string.
func userMessage(turn Message) openai.ChatCompletionMessageParamUnion {
	if len(turn.Images) == 0 {
		return openai.UserMessage(turn.Content)
	}
	parts := []openai.ChatCompletionContentPartUnionParam{openai.TextContentPart(turn.Content)}
	for _, image := range turn.Images {
		parts = append(parts, openai.ImageContentPart(openai.ChatCompletionContentPartImageImageURLParam{URL: image}))
	}
	return openai.UserMessage(parts)
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for room: %w", context.Cause(ctx))
	}
}

// codePattern matches the codes of other servers that may be shown.
var codePattern = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)
