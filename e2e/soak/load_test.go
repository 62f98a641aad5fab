package soak

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"companion/adapters/door/controlsock"
	"companion/e2e/harness"
	"companion/messages"
)

// pause is the time between two requests of a worker, so that the queue is sometimes empty.
const pause = 100 * time.Millisecond

// judge counts a reply, and fails the test for a missing one or one that is not allowed. A refused or closed
// connection is allowed: the front door was restarting.
func (s *soak) judge(ctx context.Context, kind string, reply harness.Reply, allowed ...int) {
	switch {
	case reply.Err != nil && (ctx.Err() != nil || errors.Is(reply.Err, context.DeadlineExceeded)):
		s.t.Errorf("%s: got no answer, want one within %v", kind, answerWithin)
	case reply.Err != nil:
		s.count(kind, "connection ended")
	default:
		s.count(kind, strings.TrimSpace(fmt.Sprint(reply.Status, " ", reply.Code)))
		for _, status := range allowed {
			if reply.Status == status {
				time.Sleep(pause)
				return
			}
		}
		s.t.Errorf("%s: answered %d %s, want one of %v", kind, reply.Status, reply.Code, allowed)
	}
	time.Sleep(pause)
}

// bounded gives each request its own time, beyond the end of the run, so that every request is answered.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), answerWithin)
}

func (s *soak) chat(ctx context.Context) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	s.judge(ctx, "chat", s.door.Chat(ctx, 1+rand.IntN(8)), 200, 502, 503)
}

func (s *soak) stream(ctx context.Context) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	stream := s.door.Stream(ctx, 5+rand.IntN(60))
	<-stream.Ended
	switch {
	case ctx.Err() != nil:
		s.t.Errorf("got stream %v without end, want its end within %v", stream, answerWithin)
	case stream.Status == 200 && stream.Whole():
		s.count("stream", "whole")
	case stream.Status == 200 && stream.Failed && !stream.Done:
		s.count("stream", "error event")
	case stream.Status == 502 || stream.Status == 503:
		s.count("stream", strconv.Itoa(stream.Status))
	case stream.Status == 0 || stream.Err != nil:
		s.count("stream", "connection ended")
	default:
		s.t.Errorf("got stream %v, want it whole, refused or with a final error event", stream)
	}
	time.Sleep(pause)
}

// leave is a client that leaves in the middle of a stream.
func (s *soak) leave(ctx context.Context) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	stream := s.door.Stream(ctx, 500)
	time.Sleep(rand.N(300 * time.Millisecond))
	cancel()
	<-stream.Ended
	s.count("leave", strconv.Itoa(stream.Status))
	if stream.Status != 200 && stream.Status != 502 && stream.Status != 503 && stream.Status != 0 {
		s.t.Errorf("leave: got %v, want 200, 502, 503 or no answer", stream)
	}
	time.Sleep(pause)
}

// structured sends a request like enrichment: JSON in the shape of a schema (E6).
func (s *soak) structured(ctx context.Context) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	const format = `{"messages":[{"role":"user","content":"A note about %d tomatoes."}],"max_tokens":80,
"response_format":{"type":"json_schema","json_schema":{"name":"note","strict":true,"schema":{"type":"object",
"properties":{"kind":{"type":"string","enum":["plant","tool"]}},"required":["kind"],"additionalProperties":false}}}}`
	reply := s.door.Do(ctx, http.MethodPost, "/chat/completions", fmt.Sprintf(format, rand.Int()))
	if reply.Status == 200 && reply.Err == nil {
		var answer struct {
			Choices []struct {
				Message struct{ Content string }
				Reason  string `json:"finish_reason"`
			}
		}
		var note struct{ Kind string }
		err := json.Unmarshal([]byte(reply.Body), &answer)
		if err == nil && len(answer.Choices) == 1 {
			if answer.Choices[0].Reason == "length" {
				// The grammar allows blanks, and a small model may fill all its tokens with them.
				s.count("structured", "cut at max_tokens")
				return
			}
			err = json.Unmarshal([]byte(answer.Choices[0].Message.Content), &note)
		}
		if err != nil || note.Kind == "" {
			s.t.Errorf("structured: got %v in %s, want an object of the schema", err, reply.Body)
		}
	}
	s.judge(ctx, "structured", reply, 200, 502, 503)
}

func (s *soak) models(ctx context.Context) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	s.judge(ctx, "models", s.door.Do(ctx, http.MethodGet, "/models", ""), 200, 503)
}

func (s *soak) wrongToken(ctx context.Context) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	s.judge(ctx, "wrong token", s.stranger.Chat(ctx, 1), 401)
}

func (s *soak) badBody(ctx context.Context) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	bodies := []string{"", "hello", "{", `{"messages":[]}`, `{"messages":[{"role":"user","content":"x"}],"id_slot":1}`,
		harness.Question(-2, ""), `{"messages":[{"role":"user","content":"x"}],"temperature":1e9}`}
	s.judge(ctx, "bad body", s.door.Do(ctx, http.MethodPost, "/chat/completions", bodies[rand.IntN(len(bodies))]), 400, 503)
}

// status checks the control socket's answers against A5, the runtime's process and the front door. A command
// that meets the control actor during its restart may fail, but only briefly.
func (s *soak) status(ctx context.Context) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(pause) {
		asked := time.Now()
		status, err := controlsock.Dial(filepath.Join(s.c.RunTime(), "control.sock")).Status(ctx)
		if err == nil {
			f := status.Facts
			if err := s.truth.Check(status, asked); err != nil {
				s.t.Errorf("status: %v", err)
			}
			s.doorOpen(ctx, status)
			if status.CompanionAvailable && !(f.Verified && f.Ready && f.Bound && f.Token && f.HealthRecent) {
				s.t.Errorf("available with the facts %+v, want all true", f)
			}
			s.count("status", fmt.Sprintf("available %v", status.CompanionAvailable))
			break
		}
		s.count("status", "not answered, asked again")
		if time.Now().After(deadline) {
			s.t.Errorf("status: got %v, want an answer", err)
			break
		}
	}
	time.Sleep(pause)
}

// doorOpen checks that the front door answers while inference is reported available: a failing one makes it
// unavailable within a second. A front door that denies because the runtime's load could not be read in time
// on a busy machine is open (P3).
func (s *soak) doorOpen(ctx context.Context, status messages.Status) {
	if !status.CompanionAvailable {
		return
	}
	reply := s.door.Do(ctx, http.MethodGet, "/models", "")
	if reply.Status == http.StatusOK || reply.Code == string(messages.ReasonProbeFailed) {
		return
	}
	time.Sleep(time.Second)
	again, err := controlsock.Dial(filepath.Join(s.c.RunTime(), "control.sock")).Status(ctx)
	if err == nil && again.CompanionAvailable && again.Since.Equal(status.Since) {
		s.t.Errorf("available all the time, but the front door: got %d %s %v, want 200", reply.Status, reply.Code, reply.Err)
	}
}

// breakOne injects one fault, waits a few seconds, and acts as the user who starts a held runtime.
func (s *soak) breakOne(ctx context.Context) {
	status, err := controlsock.Dial(filepath.Join(s.c.RunTime(), "control.sock")).Status(ctx)
	if err != nil {
		time.Sleep(pause)
		return
	}
	if status.Runtime.Held {
		s.count("fault", "(started again by the user)")
		s.c.Run("start")
	}
	// Usually the next fault waits for recovery from the last one; otherwise there would be nothing to
	// break.
	if !status.CompanionAvailable && rand.IntN(20) != 0 {
		time.Sleep(500 * time.Millisecond)
		return
	}
	pid := status.Runtime.PID
	switch kind := rand.IntN(6); {
	case kind == 0 && pid != 0:
		s.count("fault", "runtime killed")
		_ = syscall.Kill(pid, syscall.SIGKILL)
	case kind == 1 && pid != 0:
		s.count("fault", "runtime paused for a second")
		_ = syscall.Kill(pid, syscall.SIGSTOP)
		time.Sleep(time.Second)
		_ = syscall.Kill(pid, syscall.SIGCONT)
	case kind == 2 && pid != 0:
		s.count("fault", "runtime paused")
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	default:
		actor := status.Actors[rand.IntN(len(status.Actors))].Name
		s.count("fault", "panic of "+string(actor))
		trigger := filepath.Join(s.triggers, strings.ReplaceAll(string(actor), "/", "-"))
		if err := os.WriteFile(trigger, nil, 0o600); err != nil {
			s.t.Error(err)
		}
	}
	select {
	case <-ctx.Done():
	case <-time.After(2*time.Second + rand.N(4*time.Second)):
	}
}

// figures are the resources that a process uses.
type figures struct {
	descriptors, threads int
	resident             int64 // bytes
}

func measure(t *testing.T, pid int) figures {
	t.Helper()
	count := func(dir string) int {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", pid, dir))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return figures{count("fd"), count("task"), pages * int64(os.Getpagesize())}
}
