package frontdoor

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"companion/actors/actorkit"
	"companion/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	token      = "bG9vcGJhY2tUb2tlbmxvb3BiYWNrVG9rZW5sb29wYmE"
	probeToken = "cHJvYmVUb2tlbnByb2JlVG9rZW5wcm9iZVRva2VucHI"
	chatBody   = `{"messages":[{"role":"user","content":"hi"}]}`
	chatAnswer = `{"choices":[{"message":{"role":"assistant","content":"hello"}}],"usage":{"completion_tokens":7,"prompt_tokens":3}}`
)

// rig is a front door with everything around it played by the test.
type rig struct {
	t        testing.TB
	actor    *Actor
	box      chan messages.ToFrontDoor
	snapshot *actorkit.Watch[messages.Snapshot]
	seen     *actorkit.Watch[messages.Observation]
	told     chan messages.ToLifecycle
	logs     *observer.ObservedLogs
	baseURL  string
	address  string // host:port
	endpoint string
	stop     func()
}

// start runs a front door in front of upstream, in state ready, with both tokens given.
// observe runs check with a load that is always recent, however long check takes (P2).
func (r *rig) observe(bytes int64, check func()) {
	see := func() { r.seen.Set(messages.Observation{At: time.Now(), ResidentBytes: bytes}) }
	see()
	done := make(chan struct{})
	var seeing sync.WaitGroup
	seeing.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
				see()
			}
		}
	})
	check()
	close(done)
	seeing.Wait()
}

func start(t testing.TB, upstream http.Handler, change func(*Deps)) *rig {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	backEnd := serveUnix(t, upstream)
	r := &rig{
		t: t, box: make(chan messages.ToFrontDoor, 8), told: make(chan messages.ToLifecycle, 64), logs: logs,
		snapshot: actorkit.NewWatch(readySnapshot(backEnd)),
		seen:     actorkit.NewWatch(messages.Observation{}),
		endpoint: filepath.Join(t.TempDir(), "run", "endpoint.json"),
	}
	deps := Deps{
		Address: "127.0.0.1", EndpointPath: r.endpoint, Bounds: DefaultBounds(), Inbox: r.box, Lifecycle: r.told,
		Custody: make(chan messages.LoopbackRequest, 8), Health: make(chan messages.ToHealth, 8),
		Snapshot: r.snapshot, Observation: r.seen, Log: zap.New(core),
	}
	deps.Bounds.CloseTime = 100 * time.Millisecond
	if change != nil {
		change(&deps)
	}
	r.actor = New(deps)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.actor.Serve(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(r.stop)
	for r.baseURL == "" {
		select {
		case m := <-r.told:
			if b, ok := m.(messages.DoorBound); ok {
				r.baseURL = b.BaseURL
			}
		case err := <-done:
			done <- err
			t.Fatalf("the front door did not start: got %v, want DoorBound", err)
		}
	}
	r.address = strings.TrimSuffix(strings.TrimPrefix(r.baseURL, "http://"), "/v1")
	r.box <- messages.UseLoopbackToken{Token: messages.NewSecret(token)}
	r.box <- messages.UseProbeToken{Token: messages.NewSecret(probeToken)}
	r.drain()
	return r
}

// drain asks how many requests run, and so proves that every earlier message was handled.
func (r *rig) drain() int {
	reply := make(chan int, 1)
	r.box <- messages.Drain{Deadline: time.Now(), Reply: reply}
	return <-reply
}

func readySnapshot(backEnd messages.BackEnd) messages.Snapshot {
	return messages.Snapshot{
		State: messages.StateReady, Available: true, Reason: messages.ReasonOK, Launch: 1, BackEnd: backEnd,
		Model: messages.Model{Name: "gemma", Version: "1", Context: 4096, Infill: messages.Infill{Known: true, Begin: -1}},
	}
}

// serveUnix serves h on a Unix socket, as the runtime does.
func serveUnix(t testing.TB, h http.Handler) messages.BackEnd {
	t.Helper()
	dir, err := os.MkdirTemp("", "door") // socket paths are short
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h, ErrorLog: nil}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
		_ = os.RemoveAll(dir)
	})
	return messages.BackEnd{Network: "unix", Address: path}
}

// llama is a small upstream that answers like llama-server; it fails the test when anything
// reaches it that must not.
func llama(t testing.TB) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, r *http.Request) {
		checkUpstream(t, r)
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Set-Cookie", "a=b")
		fmt.Fprint(w, `{"object":"list","data":[{"id":"gemma","meta":{"path":"/secret"}}],"models":[]}`)
	})
	answer := func(w http.ResponseWriter, r *http.Request) {
		checkUpstream(t, r)
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), `"stream":true`) {
			w.Header().Set("Content-Type", "text/event-stream")
			for i := range 3 {
				fmt.Fprintf(w, "data: {\"i\":%d}\n\n", i)
				w.(http.Flusher).Flush()
			}
			fmt.Fprint(w, "data: {\"timings\":{\"prompt_n\":2,\"predicted_n\":3}}\n\ndata: [DONE]\n\n")
			return
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("Access-Control-Allow-Origin", "http://evil.example")
		w.Header().Set("Server", "llama.cpp")
		fmt.Fprint(w, chatAnswer)
	}
	mux.HandleFunc("POST /v1/chat/completions", answer)
	mux.HandleFunc("POST /v1/completions", answer)
	mux.HandleFunc("POST /v1/embeddings", answer)
	mux.HandleFunc("/", func(http.ResponseWriter, *http.Request) {
		t.Error("a foreign route reached the runtime, want only known routes")
	})
	return mux
}

// checkUpstream proves L7 towards the runtime: its own few headers, and nothing else.
func checkUpstream(t testing.TB, r *http.Request) {
	for name := range r.Header {
		if name != "Content-Type" && name != "Content-Length" {
			t.Errorf("the runtime got the header %s, want only Content-Type and Content-Length", name)
		}
	}
	if r.Host != "localhost" {
		t.Errorf("the runtime got Host %s, want localhost", r.Host)
	}
}

// answered is one whole answer, as it was on the wire.
type answered struct {
	status int
	header http.Header
	body   string
	closed bool // the connection ended after it
}

// raw writes text to a new connection and reads what comes back until the end, or until it is quiet.
func (r *rig) raw(text string) []answered {
	r.t.Helper()
	c, err := net.Dial("tcp", r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		r.t.Fatal(err)
	}
	var all []answered
	in := bufio.NewReader(c)
	for {
		_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
		if len(all) > 0 {
			_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		}
		if _, err := in.Peek(1); err != nil {
			if len(all) > 0 {
				all[len(all)-1].closed = !os.IsTimeout(err)
			}
			return all
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			r.t.Fatalf("reading the answer to %q: %v", text, err)
		}
		body, _ := io.ReadAll(resp.Body)
		all = append(all, answered{status: resp.StatusCode, header: resp.Header, body: string(body)})
	}
}

// one expects exactly one answer.
func (r *rig) one(text string) answered {
	r.t.Helper()
	all := r.raw(text)
	if len(all) != 1 {
		r.t.Fatalf("%q: got %d answers, want 1: %+v", text, len(all), all)
	}
	return all[0]
}

// request builds a raw request with the right Host and token.
func (r *rig) request(method, path, body string, extra ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n", method, path, r.address, token)
	for _, line := range extra {
		b.WriteString(line + "\r\n")
	}
	if body != "" {
		fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	return b.String() + "\r\n" + body
}

func (r *rig) chat() answered { return r.one(r.request("POST", "/v1/chat/completions", chatBody)) }

// code is the error's code, read as clients do.
func (a answered) code() messages.Reason {
	_, rest, _ := strings.Cut(a.body, `"code":"`)
	code, _, _ := strings.Cut(rest, `"`)
	return messages.Reason(code)
}
