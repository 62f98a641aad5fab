package frontdoor

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"companion/adapters/door/openai"
	"companion/messages"
)

// answerTo is a row of the fixed table of L10: status and message of a reason. A % stands for a limit.
type answerTo struct {
	status int
	text   string
}

var answers = map[messages.Reason]answerTo{
	messages.ReasonMalformedRequest:     {403, "The request is not one that this endpoint accepts."},
	messages.ReasonMethodNotAllowed:     {403, "Only GET, HEAD and POST are allowed."},
	messages.ReasonHostNotAllowed:       {403, "The Host header does not name this endpoint."},
	messages.ReasonCrossSiteForbidden:   {403, "Requests from web pages are not allowed."},
	messages.ReasonRateStateUnavailable: {429, "The rate of requests cannot be told."},
	messages.ReasonRateLimited:          {429, "Too many requests in a minute."},
	messages.ReasonMissingToken:         {401, "A bearer token is required; `companion env` shows it."},
	messages.ReasonInvalidToken:         {401, "The bearer token is not valid here. `companion env` shows the one of this start; `companion token list` shows whether an application's has expired."},
	messages.ReasonUnknownPath:          {404, "There is no such route here. The base URL is %/v1 for OpenAI clients, and % for Anthropic clients."},
	messages.ReasonModelNotFound:        {404, "This model is not served here; the served model is %."},
	messages.ReasonBadRequest:           {400, "The runtime does not accept this request."},
	messages.ReasonBodyTooLarge:         {413, "The body is larger than % bytes."},
	messages.ReasonQueueTimeout:         {503, "The request waited too long for its turn."},
	messages.ReasonQueueFull:            {503, "Too many requests are waiting already."},
	messages.ReasonRuntimeUnavailable:   {503, "The model's runtime cannot be reached now."},
	messages.ReasonRequestEndsRuntime:   {400, "This request ended the model's runtime before. It is refused for an hour. Change it, its schema or tools first."},
	messages.ReasonBackendUnreachable:   {503, "The model's runtime cannot be reached now."},
	messages.ReasonUpstreamFailed:       {502, "The model's runtime failed."},
	messages.ReasonNotReady:             {503, "The model is not ready."},
	messages.ReasonUnknownState:         {503, "The model is not ready."},

	messages.ReasonMalformedAdmissionState: {503, "Requests cannot be admitted now."},
	messages.ReasonMalformedRequestParams:  {503, "Requests cannot be admitted now."},
	messages.ReasonMalformedLimits:         {503, "The resource limits cannot be used."},
	messages.ReasonMalformedObservation:    {503, "The runtime's load cannot be told."},
	messages.ReasonProbeFailed:             {503, "The runtime's load cannot be told."},
	messages.ReasonRAMOverLimit:            {503, "The runtime uses more memory than allowed."},
	messages.ReasonVRAMOverLimit:           {503, "The runtime uses more GPU memory than allowed."},
	messages.ReasonCPUOverLimit:            {503, "The runtime uses more CPU than allowed."},
}

// foreignRoutes are routes of other APIs, by their beginnings, with what their programs must be told.
var foreignRoutes = []struct{ begins, api string }{
	{"/api/", "Ollama's own"}, {"/v1/api/", "Ollama's own"},
	{"/v1beta/", "Gemini's"}, {"/openai/deployments/", "Azure's"}, {"/openai/", "another"}, {"/v1/engines", "OpenAI's old"},
	{"/completion", "llama.cpp's own"}, {"/props", "llama.cpp's own"}, {"/slots", "llama.cpp's own"}, {"/tokenize", "llama.cpp's own"},
	{"/detokenize", "llama.cpp's own"}, {"/apply-template", "llama.cpp's own"}, {"/embedding", "llama.cpp's own"},
	{"/v1/internal/", "text-generation-webui's own"}, {"/v1/realtime", "a realtime"}, {"/v1/assistants", "a stateful"}, {"/v1/threads", "a stateful"},
}

// noRoute is the answer to a path that has no route. It names the right base URLs, and what to do where the path
// tells what the program is made for.
func noRoute(path, origin string) *problem {
	p := &problem{reason: messages.ReasonUnknownPath, limit: origin}
	for _, r := range foreignRoutes {
		if strings.HasPrefix(path, r.begins) && !strings.HasPrefix(path, routeCompletions[len("/v1"):]) && !strings.HasPrefix(path, routeEmbeddings[len("/v1"):]) {
			p.text = "This is a route of " + r.api + " API, which is not served here. Choose another provider in the program: the base URL is %/v1 for OpenAI clients, and % for Anthropic clients."
			return p
		}
	}
	return p
}

// Messages that say more than the message of their reason. A % stands for a limit.
const (
	textTooLong      = "The prompt does not fit the context of % tokens."
	textTooLongBy    = "The prompt has %."
	textNoImages     = "The served model does not take images. Leave them out."
	textNoAudio      = "The served model does not take audio. Leave it out."
	textNoTools      = "The served model's chat template has no tools, so it cannot be made to call one. "
	textTemplate     = "The served model's chat template does not accept this conversation. Most templates accept one system message, at the beginning, and then user and assistant in turn."
	textUnsupported  = "The served model cannot do this."
	textNewFormats   = "Requests with new schemas or tools ended the model's runtime several times. New ones are accepted again within % minutes."
	textNoEmbeddings = "The served model is not an embedding model."
	textNoInfill     = "The request is refused: " + openai.NoInfill + "."
	textNotJSON      = "The body must be application/json without content encoding."
	textBadChunks    = "The body's chunks cannot be read."
	textSlowBody     = "The body did not arrive in time."
)

var errorTypes = map[int]string{
	400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "invalid_request_error",
	413: "invalid_request_error", 429: "rate_limit_error", 502: "server_error", 503: "server_error",
}

// problem is a refusal. Text and limit replace the message of its reason.
type problem struct {
	reason messages.Reason
	param  string
	text   string
	limit  string
}

func refusal(r messages.Reason) *problem { return &problem{reason: r} }

// said returns the status and the message.
func (p *problem) said() (status int, message string) {
	known, ok := answers[p.reason]
	if !ok {
		known = answerTo{http.StatusServiceUnavailable, "The request was refused."}
	}
	text := p.text
	if text == "" {
		text = known.text
	}
	return known.status, strings.ReplaceAll(text, "%", p.limit)
}

// encode returns the status and the OpenAI error object.
func (p *problem) encode() (int, []byte) {
	status, text := p.said()
	var e struct {
		Error struct {
			Message string          `json:"message"`
			Type    string          `json:"type"`
			Code    messages.Reason `json:"code"`
			Param   *string         `json:"param"`
		} `json:"error"`
	}
	e.Error.Message, e.Error.Type, e.Error.Code = text, errorTypes[status], p.reason
	if p.param != "" {
		e.Error.Param = &p.param
	}
	body, err := json.Marshal(e)
	if err != nil {
		panic("a struct of strings cannot be encoded: " + err.Error())
	}
	return status, body
}

// errorEvent returns the event that ends a broken stream (L8).
func errorEvent(r messages.Reason) []byte {
	_, body := refusal(r).encode()
	return []byte("data: " + string(body) + "\n\n")
}

// Header values are shared; nothing changes them.
var (
	noStore    = []string{"no-store"}
	noSniff    = []string{"nosniff"}
	sameOrigin = []string{"same-origin"}
	typeJSON   = []string{"application/json"}
	closeConn  = []string{"close"}
	bearer     = []string{"Bearer"}
	oneSecond  = []string{"1"}
)

// harden sets the fields of every answer (L7).
func harden(h http.Header) {
	h["Cache-Control"] = noStore
	h["X-Content-Type-Options"] = noSniff
	h["Cross-Origin-Resource-Policy"] = sameOrigin
}

func (p *problem) write(w http.ResponseWriter, s shape) (status int) {
	status, body := p.encode()
	if s == shapeAnthropic {
		status, body = p.encodeAnthropic()
	}
	h := w.Header()
	h["Content-Type"] = typeJSON
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	switch status {
	case http.StatusUnauthorized:
		h["Www-Authenticate"] = bearer
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		h["Retry-After"] = oneSecond
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // an error means that the client has left
	return status
}
