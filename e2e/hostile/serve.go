//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// play performs the script, in a fixed order.
func play(s Script, host, alias string) {
	for _, line := range s.Say {
		fmt.Println(line)
	}
	if s.Illegal {
		dieOfIllegalInstruction()
	}
	if s.Fork {
		leaveGrandchild()
	}
	listener, err := listen(s, host)
	if err != nil {
		fail(err)
	}
	if s.Attempt {
		attemptEverything(s)
	}
	for range s.Flood {
		fmt.Println(strings.Repeat("x", s.FloodBytes))
	}
	if s.IgnoreTerm {
		signal.Ignore(syscall.SIGTERM)
	}
	if s.ExitAfter > 0 {
		time.AfterFunc(s.ExitAfter, func() { os.Exit(s.ExitCode) })
	}
	time.Sleep(s.StartAfter)
	if s.Share > 0 {
		share(s.Share)
	}
	if s.Threads > 0 {
		startThreads(s.Threads)
	}
	if s.LeaderExit {
		leaderExit()
	}
	if s.Serve {
		if listener == nil {
			if listener, err = net.Listen("unix", host); err != nil {
				fail(err)
			}
		}
		go serve(s, listener, alias)
	}
	for { // the socket's goroutine or a signal ends it
		time.Sleep(time.Hour)
	}
}

// listen binds before the attempts, which must find that nothing else can be bound.
func listen(s Script, host string) (net.Listener, error) {
	if s.BindFirst != "" {
		host = s.BindFirst
	}
	if host == "" || s.NoBind || !s.Attempt && s.BindFirst == "" {
		return nil, nil
	}
	return net.Listen("unix", host)
}

// leaderExit ends only the first thread.
func leaderExit() {
	go func() {
		for {
			time.Sleep(time.Hour)
		}
	}()
	time.Sleep(10 * time.Millisecond)
	_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
}

func serve(s Script, listener net.Listener, alias string) {
	answer := func(w http.ResponseWriter, status int, value any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(value)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		if s.NeverReady {
			answer(w, http.StatusServiceUnavailable, map[string]string{"error": "loading"})
			return
		}
		answer(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{"object": "list", "data": []map[string]any{{"id": alias, "object": "model"}}})
	})
	var asked atomic.Int64
	complete := func(w http.ResponseWriter, r *http.Request) {
		nth := asked.Add(1)
		s.obey(r)
		if s.Mute && nth > s.Answers {
			<-r.Context().Done()
			return
		}
		if s.Map > 0 && nth == 2 {
			mapModel(s.Map)
			time.Sleep(s.Linger)
		}
		answer(w, http.StatusOK, map[string]any{
			"object": "chat.completion", "model": alias,
			"choices": []map[string]any{{"index": 0, "finish_reason": "stop", "text": "x",
				"message": map[string]string{"role": "assistant", "content": "x"}}},
			"usage": map[string]int{"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
		})
	}
	mux.HandleFunc("POST /v1/chat/completions", complete)
	mux.HandleFunc("POST /v1/completions", complete)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	if s.CloseAfter > 0 {
		time.AfterFunc(s.CloseAfter, func() { _ = server.Close() })
	}
	_ = server.Serve(listener)
}

// obey does what the script says for the text of a request.
func (s *Script) obey(r *http.Request) {
	if s.DieOn == "" {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if bytes.Contains(body, []byte(s.DieOn)) {
		dieOfIllegalInstruction()
	}
	if s.HoldOn != "" && bytes.Contains(body, []byte(s.HoldOn)) {
		time.Sleep(s.HoldTime)
	}
}

// dieOfIllegalInstruction ends as llama-server does on a processor without the instructions that it was built for: by the
// default action, not the Go runtime's handler.
func dieOfIllegalInstruction() {
	var action [4]uint64
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGILL), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	_ = unix.Kill(os.Getpid(), unix.SIGILL)
	select {}
}

// leaveGrandchild forks a process that only sleeps, and prints its id.
func leaveGrandchild() {
	id, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		fmt.Println("grandchild refused:", errno)
		return
	}
	if id == 0 {
		forever := unix.Timespec{Sec: 3600}
		for {
			_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&forever)), 0, 0)
		}
	}
	fmt.Println("grandchild", id)
}
