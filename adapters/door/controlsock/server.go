package controlsock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"

	"companion/messages"
)

// Limits of one connection.
const (
	headWithin  = 5 * time.Second
	bodyWithin  = 5 * time.Second
	writeWithin = 10 * time.Second // for an answer or a line of a stream
	idleWithin  = 30 * time.Second
	closeWithin = 2 * time.Second
	maxHead     = 8 << 10
	maxBody     = 4 << 10
	minEvery    = 100 * time.Millisecond
	maxEvery    = time.Hour
)

// Server answers on the control socket.
type Server struct {
	View      Viewer
	SignIn    SignIn
	Catalogue Catalogue
	Runtime   Runtime
	Log       *zap.Logger

	Endpoint Endpoint
}

// Serve serves the connections of ln until ctx ends. It closes ln and returns when every handler has returned. The
// end of ctx ends every waiting command; the error is then nil.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	var handlers sync.WaitGroup
	mux := s.routes()
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handlers.Add(1)
			defer handlers.Done()
			mux.ServeHTTP(w, r)
		}),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: headWithin,
		IdleTimeout:       idleWithin,
		MaxHeaderBytes:    maxHead,
		ErrorLog:          zap.NewStdLog(s.Log),
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ln) }()
	var err error
	select {
	case err = <-ended:
		err = fmt.Errorf("serving the control socket: %w", err)
	case <-ctx.Done():
		// Handlers end with ctx. The connection of a client that reads its answer too slowly is closed.
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWithin)
		_ = srv.Shutdown(grace)
		cancel()
		<-ended
	}
	_ = srv.Close()
	handlers.Wait()
	return err
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, s.View.Status())
	})
	mux.HandleFunc("GET /v1/status/watch", s.watch)
	mux.HandleFunc("POST /v1/login", s.login)
	mux.HandleFunc("POST /v1/logout", func(w http.ResponseWriter, r *http.Request) {
		result, err := s.SignIn.Logout(r.Context())
		answerOr(w, err, logoutBody(result))
	})
	mux.HandleFunc("GET /v1/whoami", func(w http.ResponseWriter, r *http.Request) {
		who, err := s.SignIn.WhoAmI(r.Context())
		answerOr(w, err, whoAmIBody(who))
	})
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, r *http.Request) {
		list, err := s.Catalogue.Models(r.Context())
		answerOr(w, err, modelsBody(list))
	})
	mux.HandleFunc("POST /v1/pull", func(w http.ResponseWriter, r *http.Request) {
		var body pullBody
		if !decode(w, r, &body) {
			return
		}
		reason, err := s.Catalogue.Pull(r.Context(), body.Name)
		answerOr(w, err, reasonBody{reason})
	})
	mux.HandleFunc("POST /v1/use", func(w http.ResponseWriter, r *http.Request) {
		var body pullBody
		if !decode(w, r, &body) {
			return
		}
		reason, err := s.Catalogue.Use(r.Context(), body.Name)
		answerOr(w, err, reasonBody{reason})
	})
	mux.HandleFunc("POST /v1/prune", func(w http.ResponseWriter, r *http.Request) {
		var body pruneBody
		if !decode(w, r, &body) {
			return
		}
		result, err := s.Catalogue.Prune(r.Context(), body.DryRun)
		answerOr(w, err, prunedBody(result))
	})
	mux.HandleFunc("POST /v1/reload", command(s.Catalogue.Reload))
	mux.HandleFunc("POST /v1/start", command(s.Runtime.Start))
	mux.HandleFunc("POST /v1/stop", command(s.Runtime.Stop))
	mux.HandleFunc("POST /v1/restart", command(s.Runtime.Restart))
	mux.HandleFunc("POST /v1/tokens/reload", command(s.Endpoint.ReloadTokens))
	mux.HandleFunc("POST /v1/confirm", func(w http.ResponseWriter, r *http.Request) {
		var body confirmBody
		if !decode(w, r, &body) {
			return
		}
		confirmed, err := s.Endpoint.Confirms(r.Context(), body.Client, body.Server)
		answerOr(w, err, confirmedBody{confirmed})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusNotFound, errorBody{&Error{CodeNotFound,
			"this companion does not know that command; are daemon and command line of the same version?"}})
	})
	return mux
}

// watch streams the status. Each line is flushed, because a watcher must see the loss of availability within
// milliseconds.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	var tick <-chan time.Time
	if text := r.URL.Query().Get("every"); text != "" {
		every, err := time.ParseDuration(text)
		if err != nil || every < minEvery || every > maxEvery {
			answer(w, http.StatusBadRequest, errorBody{&Error{CodeBadRequest,
				fmt.Sprintf("every must be a duration from %v to %v", minEvery, maxEvery)}})
			return
		}
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		tick = ticker.C
	}
	out := newLines(w)
	status, changed := s.View.Next()
	if out.send(status) != nil {
		return
	}
	for {
		sent := status
		select {
		case <-r.Context().Done():
			return
		case <-tick:
			status, changed = s.View.Next()
		case <-changed:
			if status, changed = s.View.Next(); sameLifecycle(sent, status) {
				status = sent
				continue
			}
		}
		if out.send(status) != nil {
			return
		}
	}
}

// sameLifecycle reports whether a and b are equal in everything that watchers are told of. Since differs when the
// watcher missed a change and its reversal.
func sameLifecycle(a, b messages.Status) bool {
	return a.CompanionAvailable == b.CompanionAvailable && a.Lifecycle == b.Lifecycle && a.Since.Equal(b.Since)
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	var body loginBody
	if !decode(w, r, &body) {
		return
	}
	out := newLines(w)
	result, err := s.SignIn.Login(r.Context(), body.Device, func(page messages.LoginPage) {
		_ = out.send(loginLine{Page: &page})
	})
	if err != nil {
		_, why := refusal(err)
		_ = out.send(loginLine{Error: why})
		return
	}
	_ = out.send(loginLine{Result: &loginResult{result.Reason, result.Detail, result.User, result.Hub}})
}

func command(do func(context.Context) (messages.Reason, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		reason, err := do(r.Context())
		answerOr(w, err, reasonBody{reason})
	}
}

// decode reads the small JSON object of a command. On an error it sends the answer and returns false.
func decode(w http.ResponseWriter, r *http.Request, into any) bool {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyWithin))
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		answer(w, http.StatusBadRequest, errorBody{&Error{CodeBadRequest, "the body of the command cannot be read"}})
		return false
	}
	// The command itself may take longer. net/http would treat an expired deadline as a client that has left.
	_ = control.SetReadDeadline(time.Time{})
	return true
}

func answerOr(w http.ResponseWriter, err error, body any) {
	if err == nil {
		answer(w, http.StatusOK, body)
		return
	}
	status, why := refusal(err)
	answer(w, status, errorBody{why})
}

// refusal returns the error for the client. The text of err may contain secrets, so none of it is passed on.
func refusal(err error) (int, *Error) {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return http.StatusGatewayTimeout, &Error{CodeTimeout, "the companion did not answer in time"}
	}
	return http.StatusInternalServerError, &Error{CodeInternal, "the companion could not take the command; see its log"}
}

func answer(w http.ResponseWriter, status int, body any) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeWithin))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// lines writes one JSON value per line and flushes each.
type lines struct {
	control *http.ResponseController
	encoder *json.Encoder
}

func newLines(w http.ResponseWriter) *lines {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return &lines{http.NewResponseController(w), json.NewEncoder(w)}
}

func (l *lines) send(value any) error {
	_ = l.control.SetWriteDeadline(time.Now().Add(writeWithin))
	if err := l.encoder.Encode(value); err != nil {
		return err
	}
	return l.control.Flush()
}
