// Package healthprobe checks whether local inference works: it lists the model through the front door, as
// every client does, and lists the model or generates one token directly at the back end (A4). The direct
// probes work while the front door is closed to inference, and tell whether the front door or the runtime has
// failed. The package decides nothing.
package healthprobe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"companion/adapters/peer"
	"companion/messages"
)

// maxAnswer bounds what is read of an answer, in bytes. An embedding of the largest models takes about 200
// KiB as JSON.
const maxAnswer = 2 << 20

// Fault says which side a failed probe blames.
type Fault int

const (
	// FaultDoor says nothing about the runtime.
	FaultDoor Fault = iota
	// FaultRuntime means that the runtime, or what answers in its place, is silent or answers wrongly.
	FaultRuntime
)

// Error is a failed probe. Its text holds no secret and no path.
type Error struct {
	Reason messages.Reason
	Fault  Fault
	err    error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Reason, e.err) }
func (e *Error) Unwrap() error { return e.err }

// Prober makes probes. Each probe opens a connection and closes it, because a pooled one would still work
// after its listener is gone. Every method returns nil or an *Error, waits until ctx ends at most, and is
// safe for concurrent use.
type Prober struct{ door *http.Client }

// New returns a Prober.
func New() *Prober {
	return &Prober{client(new(net.Dialer).DialContext)}
}

func client(dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Client {
	return &http.Client{
		// No Proxy: the probe must not leave the machine, even if the environment names a proxy.
		Transport:     &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Door sends GET /models with the probe token to the front door at baseURL. The answer must name model and no other
// model.
func (p *Prober) Door(ctx context.Context, baseURL string, token messages.Secret, model string) error {
	u, err := url.Parse(baseURL)
	if err != nil || u.Scheme != "http" || !isLoopback(u.Hostname()) {
		return &Error{messages.ReasonProbeFailed, FaultDoor, errors.New("the front door is not at a loopback address")}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.JoinPath("models").String(), nil)
	if err != nil {
		return &Error{messages.ReasonProbeFailed, FaultDoor, errors.New("no request can be made for that address")}
	}
	request.Header.Set("Authorization", "Bearer "+token.Reveal())
	status, body, err := do(p.door, request)
	if err != nil {
		if ctx.Err() != nil {
			return silence()
		}
		return &Error{messages.ReasonProbeFailed, FaultDoor, errors.New("the front door cannot be reached")}
	}
	if status != http.StatusOK {
		return doorRefusal(status)
	}
	return namesModel(body, model)
}

// Models sends GET /v1/models to the back end. llama-server answers it while it computes.
func (p *Prober) Models(ctx context.Context, backEnd messages.BackEnd, model string) error {
	body, err := p.backEnd(ctx, backEnd, http.MethodGet, "/v1/models", nil)
	if err != nil {
		return err
	}
	return namesModel(body, model)
}

// Asleep asks the back end whether its model has given its memory back (R14). The question does not wake it. While it
// wakes, llama-server answers when that is done.
func (p *Prober) Asleep(ctx context.Context, backEnd messages.BackEnd) (bool, error) {
	body, err := p.backEnd(ctx, backEnd, http.MethodGet, "/props", nil)
	if err != nil {
		return false, err
	}
	var properties struct {
		Asleep bool `json:"is_sleeping"`
	}
	if json.Unmarshal(body, &properties) != nil {
		return false, upstream("the properties are not JSON")
	}
	return properties.Asleep, nil
}

// Generate asks the back end for one token, or for one embedding from an embedding model. A busy runtime
// queues it.
func (p *Prober) Generate(ctx context.Context, backEnd messages.BackEnd, model messages.Model) error {
	path, ask := "/v1/completions", map[string]any{
		"model": model.Name, "prompt": "a", "max_tokens": 1, "temperature": 0, "cache_prompt": false,
	}
	if model.Embedding {
		path, ask = "/v1/embeddings", map[string]any{"model": model.Name, "input": "a"}
	}
	encoded, err := json.Marshal(ask)
	if err != nil {
		return &Error{messages.ReasonProbeFailed, FaultDoor, errors.New("the request cannot be encoded")}
	}
	body, err := p.backEnd(ctx, backEnd, http.MethodPost, path, encoded)
	if err != nil {
		return err
	}
	var answer struct {
		Usage struct {
			Completion int `json:"completion_tokens"`
		} `json:"usage"`
		Data []struct {
			Embedding []float64 `json:"embedding"`
		} `json:"data"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return upstream("the answer is not what the OpenAI interface says")
	}
	generated := answer.Usage.Completion == 1
	if model.Embedding {
		generated = len(answer.Data) == 1 && len(answer.Data[0].Embedding) > 0
	}
	if !generated {
		return upstream("the answer holds nothing that was computed")
	}
	return nil
}

func (p *Prober) backEnd(ctx context.Context, backEnd messages.BackEnd, method, path string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, bytes.NewReader(body))
	if err != nil {
		return nil, &Error{messages.ReasonProbeFailed, FaultDoor, errors.New("no request can be made")}
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	status, answer, err := do(client(func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dial(ctx, backEnd)
	}), request)
	switch {
	case errors.Is(err, peer.ErrOtherProcess):
		return nil, &Error{messages.ReasonBackendUnreachable, FaultRuntime, errors.New("another process answers on the back end's socket")}
	case err != nil && ctx.Err() != nil:
		return nil, silence()
	case err != nil:
		return nil, &Error{messages.ReasonRuntimeUnavailable, FaultRuntime, errors.New("the back end cannot be reached")}
	case status != http.StatusOK:
		return nil, upstream(fmt.Sprintf("the back end answered with status %d", status))
	}
	return answer, nil
}

// dial connects to the back end, and refuses a connection whose other end is not the runtime's process (R3).
func dial(ctx context.Context, backEnd messages.BackEnd) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, backEnd.Network, backEnd.Address)
	if err != nil || backEnd.PID == 0 {
		return conn, err
	}
	if err := peer.Check(conn, backEnd.PID); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// do returns the status and the whole answer. Errors of net/http quote addresses, and the error of a Unix socket
// contains its path, so callers write their own texts.
func do(client *http.Client, request *http.Request) (status int, body []byte, err error) {
	answer, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	return answer.StatusCode, body, err
}

func namesModel(body []byte, model string) error {
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if json.Unmarshal(body, &list) != nil {
		return upstream("the list of models is not what the OpenAI interface says")
	}
	if len(list.Data) != 1 || model == "" || list.Data[0].ID != model {
		return &Error{messages.ReasonModelNotFound, FaultRuntime, errors.New("another model is served")}
	}
	return nil
}

// doorRefusal maps the front door's own answers. 502 and 503 are about the runtime.
func doorRefusal(status int) error {
	err := fmt.Errorf("the front door answered with status %d", status)
	switch status {
	case http.StatusBadGateway:
		return &Error{messages.ReasonUpstreamFailed, FaultRuntime, err}
	case http.StatusServiceUnavailable:
		return &Error{messages.ReasonRuntimeUnavailable, FaultRuntime, err}
	case http.StatusUnauthorized:
		return &Error{messages.ReasonInvalidToken, FaultDoor, err}
	case http.StatusTooManyRequests:
		return &Error{messages.ReasonRateLimited, FaultDoor, err}
	default:
		return &Error{messages.ReasonProbeFailed, FaultDoor, err}
	}
}

func upstream(text string) error {
	return &Error{messages.ReasonUpstreamFailed, FaultRuntime, errors.New(text)}
}

func silence() error {
	return &Error{messages.ReasonRuntimeUnavailable, FaultRuntime, errors.New("no answer in time")}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
