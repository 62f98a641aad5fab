package completion

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/packages/ssestream"

	"companion/messages"
)

// longestWait bounds one wait for a server's Retry-After.
const longestWait = 30 * time.Second

// Error is a refusal or failure of the target. Code is a reason (docs/reasons.md) of our endpoint, the code of another
// server, or, without a usable answer, one of timed_out, answer_too_large, unreachable, redirected, upstream_failed and
// malformed_answer.
type Error struct {
	Status     int // HTTP status; zero when no answer came
	Code       string
	Message    string
	RetryAfter time.Duration
	Remote     bool // the target is not our endpoint
	err        error
}

// TooLong reports whether the endpoint refused a prompt that does not fit the model's context (docs/api.md).
func (e *Error) TooLong() bool {
	return e.Status == http.StatusBadRequest && strings.Contains(e.Message, "does not fit the context")
}

func (e *Error) Error() string {
	text := "the model did not answer"
	if e.Status != 0 {
		text = fmt.Sprintf("the model's server answered %d", e.Status)
	}
	if e.Code != "" {
		text += " (" + e.Code + ")"
	}
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

func (e *Error) Unwrap() error { return e.err }

// Reason returns the code as a reason, for the exit status.
func (e *Error) Reason() messages.Reason { return messages.Reason(e.Code) }

// Busy reports whether the same request may be admitted a little later.
func (e *Error) Busy() bool {
	return e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable
}

// explain maps the library's errors to *Error, because the library's text quotes the request.
func (c *Client) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("asking the model: %w", context.Cause(ctx))
	}
	var refused *openai.Error
	var broken *ssestream.StreamError
	var limit *limitError
	switch {
	case errors.As(err, &limit):
		return c.failed(limit.code, limit.message, limit)
	case errors.As(err, &refused):
		e := &Error{Status: refused.StatusCode, Remote: !c.target.Local}
		if codePattern.MatchString(refused.Code) {
			e.Code = refused.Code
		}
		if c.target.Local {
			e.Message = refused.Message
		}
		if refused.Response != nil {
			e.RetryAfter = retryAfter(refused.Response.Header)
		}
		return e
	case errors.As(err, &broken):
		return c.brokeOff()
	case errors.Is(err, errRedirect):
		return c.failed("redirected", errRedirect.Error(), errRedirect)
	}
	if refused := new(unconfirmedError); errors.As(err, &refused) {
		return refused.err // nothing was sent
	}
	if failed := new(url.Error); errors.As(err, &failed) {
		return c.failed("unreachable", "no connection, or it broke off", err)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		return c.brokeOff()
	}
	return c.malformed("the answer is not in the OpenAI format")
}

// failed makes the Error of a request that got no usable answer.
func (c *Client) failed(code, message string, cause error) error {
	return &Error{Code: code, Message: message, Remote: !c.target.Local, err: cause}
}

func (c *Client) malformed(message string) error { return c.failed("malformed_answer", message, nil) }

func (c *Client) brokeOff() error {
	return c.failed(string(messages.ReasonUpstreamFailed), "the answer broke off", nil)
}

func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, longestWait)
}
