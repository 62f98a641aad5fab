package completion

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/packages/ssestream"

	"companion/messages"
)

// longestWait bounds what a server's Retry-After can make us wait at once.
const longestWait = 30 * time.Second

// Error is a refusal or a failure of the target. Code is a reason of ours where the front door
// answered, else the server's own code, or ours for what is no answer at all.
type Error struct {
	Status     int // HTTP status; zero when no answer came
	Code       string
	Message    string
	RetryAfter time.Duration
	err        error
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

// Reason is the code as a reason, for the exit status.
func (e *Error) Reason() messages.Reason { return messages.Reason(e.Code) }

// Busy reports whether the same request may be admitted a little later.
func (e *Error) Busy() bool {
	return e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable
}

// explain turns the library's errors into ours. The library's own text quotes the request.
func (c *Client) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("asking the model: %w", context.Cause(ctx))
	}
	var refused *openai.Error
	var broken *ssestream.StreamError
	switch {
	case errors.As(err, &refused):
		e := &Error{Status: refused.StatusCode}
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
		return errBrokeOff()
	case errors.Is(err, errRedirect):
		return &Error{Code: "redirected", Message: errRedirect.Error(), err: errRedirect}
	}
	if failed := new(url.Error); errors.As(err, &failed) {
		return &Error{Code: "unreachable", Message: "no connection, or it broke off", err: err}
	}
	return &Error{Code: "malformed_answer", Message: "the answer is not in the OpenAI format"}
}

func errBrokeOff() error {
	return &Error{Code: string(messages.ReasonUpstreamFailed), Message: "the answer broke off"}
}

func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, longestWait)
}
