package e2e

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"companion/e2e/harness"
	"companion/messages"
)

// R3, A5: a program of the same user puts a socket of its own in the place of the running runtime's, and answers
// there like a runtime. No request and no probe reaches it; the daemon notices it by the next new connection,
// and replaces the runtime.
func TestImpostorAtTheBackEnd(t *testing.T) {
	c := harness.Ready(t, "[health]\nbeat = \"1s\"\nidle_probe = \"2s\"\n")
	before, _ := c.Status()
	sockets, err := filepath.Glob(filepath.Join(c.RunTime(), "backend", "*", "*.sock"))
	if err != nil || len(sockets) != 1 {
		t.Fatalf("got the sockets %v, %v, want one", sockets, err)
	}
	if err := os.Rename(sockets[0], sockets[0]+".old"); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", sockets[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(sockets[0], 0o600); err != nil {
		t.Fatal(err)
	}
	var reached atomic.Int64
	impostor := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"object":"list","data":[{"id":"` + before.Model.Name + `"}],"choices":[{"text":"x"}],"usage":{"completion_tokens":1}}`))
	})}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = impostor.Serve(l) }()
	defer func() { _ = impostor.Close(); <-ended }()

	// A stream leaves no idle connection behind, so one of these needs a new connection.
	for range 3 {
		stream := c.Door().Stream(t.Context(), 5)
		<-stream.Ended
		if stream.Status != 200 && stream.Status != 503 {
			t.Errorf("got %v, want an answer of the runtime or 503", stream)
		}
	}
	c.Await("a new runtime", time.Minute, func(s messages.Status) bool {
		return s.CompanionAvailable && s.Runtime.PID != 0 && s.Runtime.PID != before.Runtime.PID
	})
	if n := reached.Load(); n != 0 {
		t.Errorf("got %d requests at the impostor, want none", n)
	}
	if !strings.Contains(c.Log(), string(messages.ReasonBackendUnreachable)) {
		t.Error("got no backend_unreachable in the log, want the reason there")
	}
	if reply := c.Door().Chat(t.Context(), 3); reply.Status != 200 {
		t.Errorf("afterwards: got %d %s, want 200", reply.Status, reply.Code)
	}
	c.Stop()
}
