package frontdoor

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"companion/messages"
)

// hung is an upstream that reads requests and never answers; it tells of each that is cancelled.
func hung(t *testing.T) (messages.BackEnd, *slow) {
	up := newSlow()
	return serveUnix(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		up.began <- r.Method
		<-r.Context().Done()
		up.gone <- struct{}{}
	})), up
}

// L8, A4: a probe that gives up on a hung runtime holds no connection to it.
func TestProbeOfAHungRuntime(t *testing.T) {
	r := start(t, llama(t), nil)
	backEnd, up := hung(t)
	r.behind(2, backEnd)
	c := r.send(strings.Replace(r.request("GET", "/v1/models", ""), token, probeToken, 1))
	<-up.began
	c.Close()
	select {
	case <-up.gone:
	case <-time.After(2 * time.Second):
		t.Error("the runtime still answers a probe that left")
	}
}

// Issue 4: a client that leaves is not counted as a failure of the runtime's.
func TestLeavingIsNoFailure(t *testing.T) {
	up := newSlow()
	r := start(t, up, nil)
	for i, stream := range []string{"false", "true"} {
		c := r.send(r.request("POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"x"}],"stream":`+stream+`}`))
		<-up.began
		c.Close()
		<-up.gone
		for end := time.Now().Add(patience); len(r.logs.FilterMessage("request").All()) <= i; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the access log is silent")
			}
		}
		if counted := r.actor.View().Verdicts; counted[messages.ReasonUpstreamFailed] != 0 || counted[messages.ReasonOK] != int64(i+1) {
			t.Errorf("stream %s: counted %v", stream, counted)
		}
	}
}

// L3a, L10: a client that wants the connection closed can send the rest of its body and read why it
// was refused, as others can.
func TestRefusedBeforeTheBodyCame(t *testing.T) {
	r := start(t, llama(t), nil)
	for _, connection := range []string{"keep-alive", "close"} {
		text := r.request("POST", "/v1/chat/completions", "", "Content-Type: application/json", "Content-Length: 100000", "Connection: "+connection)
		c := r.send(strings.Replace(text, token, "wrong", 1))
		head := make([]byte, 12)
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(c, head); err != nil || string(head) != "HTTP/1.1 401" {
			t.Fatalf("%s: %q, %v", connection, head, err)
		}
		for range 10 {
			if _, err := io.WriteString(c, strings.Repeat("x", 10000)); err != nil {
				t.Errorf("%s: sending the body: %v", connection, err)
				break
			}
		}
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Errorf("%s: reading the answer: %v", connection, err)
		}
	}
}

// L8: the error event stands for itself also when a long event was under way.
func TestDiesInALongEvent(t *testing.T) {
	r := start(t, llama(t), nil)
	long := "data: " + strings.Repeat("x", 40000)
	backEnd, _ := scripted(t, thenCloses(writes(streamHead, chunk(long))))
	r.behind(2, backEnd)
	a := r.one(r.request("POST", "/v1/chat/completions", streamBody))
	if !strings.HasSuffix(a.body, "x\n\n"+string(errorEvent(messages.ReasonUpstreamFailed))) {
		t.Errorf("ends with %q", a.body[max(0, len(a.body)-200):])
	}
}
