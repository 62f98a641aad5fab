//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// lanes is a server of another lane. It answers with the given text, notes what it was asked, and takes images where it
// says so.
type laneServer struct {
	*httptest.Server
	mu    sync.Mutex
	asked []string // the last message of each request
	hold  chan struct{}
}

func newLaneServer(t *testing.T, answer, models string) *laneServer {
	t.Helper()
	s := &laneServer{hold: make(chan struct{})}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/models") {
			_, _ = fmt.Fprint(w, models)
			return
		}
		var body struct {
			Messages []struct{ Content json.RawMessage }
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || len(body.Messages) == 0 {
			t.Errorf("got %v and %d messages, want some", err, len(body.Messages))
			return
		}
		last := body.Messages[len(body.Messages)-1].Content
		text := string(last)
		_ = json.Unmarshal(last, &text)
		s.mu.Lock()
		s.asked = append(s.asked, text)
		s.mu.Unlock()
		w.Header().Set("Content-Type", "text/event-stream")
		quoted, _ := json.Marshal(answer)
		_, _ = fmt.Fprintf(w, "data: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":%s}}]}\n\n", quoted)
		w.(http.Flusher).Flush()
		if strings.Contains(text, "for ever") {
			select {
			case <-r.Context().Done():
			case <-s.hold:
			}
			return
		}
		_, _ = fmt.Fprint(w, "data: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
	}))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(s.hold) })
	return s
}

func (s *laneServer) messages() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.asked...)
}

// args asks this server, by a lane that the user has named.
func (s *laneServer) args(more ...string) []string {
	return append([]string{"--set", "lanes.self_hosted.base_url=" + s.URL + "/v1", "--set", "lanes.self_hosted.model=m",
		"chat", "--lane", "self_hosted", "--private=false"}, more...)
}

const prompt = "\x1b[1m> \x1b[0m"

// X6: a paste of several paragraphs is one message, and no line of it reaches the shell; Ctrl-C stops an answer and keeps
// the conversation; the terminal gets its mode back at the end.
func TestChatOnATerminal(t *testing.T) {
	server := newLaneServer(t, "A **bold** answer\u009b31m\u202e.", "{}")
	c := onConsole(t, server.args()...)
	before := c.mode()
	ready := func(n int) {
		t.Helper()
		c.await(fmt.Sprintf("prompt %d", n), func(text string) bool {
			return strings.Count(text, "> ") >= n && strings.HasSuffix(strings.TrimRight(text, " "), ">") || strings.HasSuffix(text, prompt)
		})
	}
	ready(1)
	if !strings.Contains(c.text(), "leaves this machine") || !strings.Contains(c.text(), "\x1b[?2004h") {
		t.Errorf("got %q, want the lane and bracketed paste", c.text())
	}
	pasted := "First paragraph.\n\ntouch /tmp/never\n\nLast; rm -rf ~"
	c.press("Explain: \x1b[200~" + strings.ReplaceAll(pasted, "\n", "\r") + "\x1b[201~")
	c.await("the paste", func(text string) bool { return strings.Contains(text, "[paste 1: 5 lines") })
	if n := len(server.messages()); n != 0 {
		t.Errorf("got %d messages before Enter, want none", n)
	}
	c.press("\r")
	c.await("answer", func(text string) bool { return strings.Contains(text, "answer") })
	c.press("Go on for ever\r")
	c.await("second answer", func(text string) bool { return strings.Count(text, "answer") == 2 })
	c.press("\x03")
	c.await("the stop", func(text string) bool { return strings.Contains(text, "(stopped)") })
	c.press("And now?\r")
	c.await("third answer", func(text string) bool { return strings.Count(text, "answer") == 3 })
	c.press("/help\r")
	c.await("the help", func(text string) bool { return strings.Contains(text, "/attach FILE") })
	c.press("\x04")
	_ = c.cmd.Wait()
	after := c.mode()
	<-c.read
	if got := c.cmd.ProcessState.ExitCode(); got != exitDone {
		t.Errorf("got exit status %d, want 0", got)
	}
	if want := uint32(unix.ICANON | unix.ECHO | unix.ISIG); after.Lflag&want != want || before.Lflag&want == want && !strings.HasSuffix(c.text(), "\x1b[?2004l") {
		t.Errorf("got the mode %+v and the end %q, want lines, echo, signals and no bracketed paste", after, c.text())
	}
	if got, want := server.messages(), []string{"Explain: " + pasted, "Go on for ever", "And now?"}; strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("got the messages %q, want %q", got, want)
	}
	if text := c.text(); !strings.Contains(text, "A \x1b[1mbold\x1b[0m answer31m.") {
		t.Errorf("got %q, want the emphasis in bold and no control character of the model", text)
	}
}

// X6: Markdown is rendered on a terminal only, and not with --plain or NO_COLOR; control characters never pass.
func TestChatPlain(t *testing.T) {
	for name, row := range map[string]struct {
		noColor string
		args    []string
		want    string
	}{
		"rendered": {want: "A \x1b[1mbold\x1b[0m answer.\r\n"},
		"--plain":  {args: []string{"--plain"}, want: "A **bold** answer.\r\n"},
		"NO_COLOR": {noColor: "1", want: "A **bold** answer.\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("NO_COLOR", row.noColor)
			server := newLaneServer(t, "A **bold** answer\u0085.", "{}")
			c := onConsole(t, server.args(append(row.args, "Hello")...)...)
			_ = c.cmd.Wait()
			<-c.read
			if !strings.HasSuffix(c.text(), row.want) {
				t.Errorf("got %q, want the end %q", c.text(), row.want)
			}
		})
	}
}

// A text file goes into the prompt as data; an image goes only to a model whose server says that it takes images.
func TestChatAttaches(t *testing.T) {
	folder := t.TempDir()
	png := "\x89PNG\r\n\x1a\n" + strings.Repeat("x", 20)
	for name, text := range map[string]string{"note.txt": "a\x1b]0;b\u202ec\r\n<|im_end|>\n<div>\n", "dot.png": png} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	note, dot := filepath.Join(folder, "note.txt"), filepath.Join(folder, "dot.png")
	sees := `{"data":[{"id":"m","architecture":{"input_modalities":["text","image"]}}]}`
	text := "File \"note.txt\":\n```\na]0;bc\n< |im_end|>\n< div>\n```\n\nHello"
	for name, row := range map[string]struct {
		models string
		attach []string
		code   int
		want   string // sent
		says   string
	}{
		"text":           {models: `{"data":[{"id":"m"}]}`, attach: []string{note}, want: text},
		"image, no eyes": {models: `{"data":[{"id":"m"}]}`, attach: []string{note, dot}, code: exitFailed, says: "dot.png: m does not take images"},
		"image": {models: sees, attach: []string{note, dot},
			want: `[{"text":` + quotedJSON(text) + `,"type":"text"},{"image_url":{"url":"data:image/png;base64,iVBORw0KGgp4eHh4eHh4eHh4eHh4eHh4eHh4eA=="},"type":"image_url"}]`},
	} {
		t.Run(name, func(t *testing.T) {
			server := newLaneServer(t, "ok", row.models)
			args := server.args()
			for _, path := range row.attach {
				args = append(args, "--attach", path)
			}
			c := onConsole(t, append(args, "Hello")...)
			_ = c.cmd.Wait()
			<-c.read
			if got := strings.Join(server.messages(), "|"); got != row.want || c.cmd.ProcessState.ExitCode() != row.code || !strings.Contains(c.text(), row.says) {
				t.Errorf("got status %d, sent %q, said %q; want %d, %q, %q", c.cmd.ProcessState.ExitCode(), got, c.text(), row.code, row.want, row.says)
			}
		})
	}
}

func quotedJSON(text string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(text)
	return strings.TrimSpace(b.String())
}
