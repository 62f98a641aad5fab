package healthprobe

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	goodList  = `{"object":"list","data":[{"id":"gemma","object":"model"}]}`
	goodToken = `{"object":"text_completion","choices":[{"text":" =","finish_reason":"length"}],"usage":{"completion_tokens":1}}`
)

// onSocket serves handler on a Unix socket.
func onSocket(t *testing.T, handler http.Handler) messages.BackEnd {
	t.Helper()
	path := filepath.Join(t.TempDir(), "b.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: ln, Config: &http.Server{Handler: handler}}
	server.Start()
	t.Cleanup(server.Close)
	return messages.BackEnd{Network: "unix", Address: path}
}

func answering(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func silent(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func check(t *testing.T, err error, reason messages.Reason, fault Fault) {
	t.Helper()
	if reason == messages.ReasonOK {
		if err != nil {
			t.Errorf("got %v, want success", err)
		}
		return
	}
	var failed *Error
	if !errors.As(err, &failed) || failed.Reason != reason || failed.Fault != fault {
		t.Errorf("got %v (%+v), want %s by fault %d", err, failed, reason, fault)
	}
}

// A4: a probe through the front door fails unless the answer names the expected model.
func TestDoor(t *testing.T) {
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		reason  messages.Reason
		fault   Fault
	}{
		"good":          {answering(200, goodList), messages.ReasonOK, 0},
		"another model": {answering(200, strings.ReplaceAll(goodList, "gemma", "other")), messages.ReasonModelNotFound, FaultRuntime},
		"two models":    {answering(200, `{"data":[{"id":"gemma"},{"id":"other"}]}`), messages.ReasonModelNotFound, FaultRuntime},
		"no model":      {answering(200, `{"data":[]}`), messages.ReasonModelNotFound, FaultRuntime},
		"not JSON":      {answering(200, "<html>"), messages.ReasonUpstreamFailed, FaultRuntime},
		"502":           {answering(502, ""), messages.ReasonUpstreamFailed, FaultRuntime},
		"503":           {answering(503, ""), messages.ReasonRuntimeUnavailable, FaultRuntime},
		"401":           {answering(401, ""), messages.ReasonInvalidToken, FaultDoor},
		"429":           {answering(429, ""), messages.ReasonRateLimited, FaultDoor},
		"403":           {answering(403, ""), messages.ReasonProbeFailed, FaultDoor},
		"redirect": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
			messages.ReasonProbeFailed, FaultDoor},
		"silent": {silent, messages.ReasonRuntimeUnavailable, FaultRuntime},
		"half an answer": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, goodList)
		}, messages.ReasonProbeFailed, FaultDoor},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet || r.URL.Path != "/v1/models" || r.Header.Get("Authorization") != "Bearer probe" {
					t.Errorf("got %s %s, want GET /v1/models with the probe token", r.Method, r.URL.Path)
				}
				test.handler(w, r)
			}))
			defer server.Close()
			within := 5 * time.Second
			if name == "silent" {
				within = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			err := New().Door(ctx, server.URL+"/v1", messages.NewSecret("probe"), "gemma")
			check(t, err, test.reason, test.fault)
			if err != nil && (strings.Contains(err.Error(), "Bearer") || strings.Contains(err.Error(), "127.0.0.1")) {
				t.Errorf("got the error %v, want one without token and address", err)
			}
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		server := httptest.NewServer(http.NotFoundHandler())
		server.Close()
		check(t, New().Door(t.Context(), server.URL, messages.NewSecret("probe"), "gemma"), messages.ReasonProbeFailed, FaultDoor)
	})
	// Rule 2: the probe token is sent only to a loopback literal.
	for _, base := range []string{"", "http://localhost:1/v1", "http://192.0.2.1/v1", "https://127.0.0.1/v1", "http://127.0.0.1.example/v1"} {
		check(t, New().Door(t.Context(), base, messages.NewSecret("probe"), "gemma"), messages.ReasonProbeFailed, FaultDoor)
	}
}

// A proxy of the environment must not see the probe. (net/http does not use a proxy for loopback addresses; this test
// also holds if that changes.)
func TestNoProxy(t *testing.T) {
	if New().door.Transport.(*http.Transport).Proxy != nil {
		t.Error("got a proxy function, want none")
	}
}

func TestModels(t *testing.T) {
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		reason  messages.Reason
	}{
		"good":          {answering(200, goodList), messages.ReasonOK},
		"another model": {answering(200, `{"data":[{"id":"/home/x/model.gguf"}]}`), messages.ReasonModelNotFound},
		"loading":       {answering(503, `{"error":{"message":"Loading model"}}`), messages.ReasonUpstreamFailed},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, New().Models(t.Context(), onSocket(t, test.handler), "gemma"), test.reason, FaultRuntime)
		})
	}
	gone := messages.BackEnd{Network: "unix", Address: filepath.Join(t.TempDir(), "gone.sock")}
	err := New().Models(t.Context(), gone, "gemma")
	check(t, err, messages.ReasonRuntimeUnavailable, FaultRuntime)
	if strings.Contains(err.Error(), gone.Address) {
		t.Errorf("got the error %v, want one without the socket's path", err)
	}
}

// A4: one real token, or one real embedding; a server that answers without computing fails the probe.
func TestGenerate(t *testing.T) {
	gemma := messages.Model{Name: "gemma", Context: 4096}
	embedder := messages.Model{Name: "gemma", Embedding: true}
	for name, test := range map[string]struct {
		model   messages.Model
		handler http.HandlerFunc
		reason  messages.Reason
	}{
		"a token":         {gemma, answering(200, goodToken), messages.ReasonOK},
		"no token":        {gemma, answering(200, `{"choices":[{"text":""}],"usage":{"completion_tokens":0}}`), messages.ReasonUpstreamFailed},
		"empty object":    {gemma, answering(200, `{}`), messages.ReasonUpstreamFailed},
		"not JSON":        {gemma, answering(200, `ok`), messages.ReasonUpstreamFailed},
		"refused":         {gemma, answering(500, goodToken), messages.ReasonUpstreamFailed},
		"silent":          {gemma, silent, messages.ReasonRuntimeUnavailable},
		"an embedding":    {embedder, answering(200, `{"data":[{"embedding":[0.5,1]}],"usage":{"completion_tokens":1}}`), messages.ReasonOK},
		"empty embedding": {embedder, answering(200, `{"data":[{"embedding":[]}],"usage":{"completion_tokens":1}}`), messages.ReasonUpstreamFailed},
	} {
		t.Run(name, func(t *testing.T) {
			backEnd := onSocket(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var ask map[string]any
				if err := json.NewDecoder(r.Body).Decode(&ask); err != nil || ask["model"] != "gemma" {
					t.Errorf("got the request %v, %v, want one for gemma", ask, err)
				}
				wantPath := "/v1/completions"
				if test.model.Embedding {
					wantPath = "/v1/embeddings"
				} else if ask["max_tokens"] != 1.0 {
					t.Errorf("got a request for %v tokens, want 1", ask["max_tokens"])
				}
				if r.URL.Path != wantPath || r.Header.Get("Authorization") != "" {
					t.Errorf("got a request to %s with token %q, want %s without one", r.URL.Path, r.Header.Get("Authorization"), wantPath)
				}
				test.handler(w, r)
			}))
			within := 5 * time.Second
			if name == "silent" {
				within = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			check(t, New().Generate(ctx, backEnd, test.model), test.reason, FaultRuntime)
		})
	}
}

// R3, A4: both probes of the back end connect only to the runtime's process. A foreign process is sent no request, and
// its answer does not count.
func TestForeignBackEnd(t *testing.T) {
	gemma := messages.Model{Name: "gemma", Context: 4096}
	asked := 0
	backEnd := onSocket(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		answer := goodToken
		if r.Method == http.MethodGet {
			answer = goodList
		}
		answering(200, answer)(w, r)
	}))
	for pid, reason := range map[int]messages.Reason{
		os.Getpid(): messages.ReasonOK, os.Getppid(): messages.ReasonBackendUnreachable, 1: messages.ReasonBackendUnreachable,
	} {
		backEnd.PID, asked = pid, 0
		check(t, New().Models(t.Context(), backEnd, "gemma"), reason, FaultRuntime)
		err := New().Generate(t.Context(), backEnd, gemma)
		check(t, err, reason, FaultRuntime)
		if err != nil && strings.Contains(err.Error(), backEnd.Address) {
			t.Errorf("got the socket's path in %v, want none", err)
		}
		if want := 2; reason != messages.ReasonOK && asked != 0 || reason == messages.ReasonOK && asked != want {
			t.Errorf("process %d: got %d requests, want 2 at the runtime and none elsewhere", pid, asked)
		}
	}
}
