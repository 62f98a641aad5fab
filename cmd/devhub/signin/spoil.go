package signin

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"companion/cmd/devhub/fault"
)

const (
	// hugeToken is longer than a client may accept (contract O7: 8192 bytes).
	hugeToken = 9000
	// hugeAnswer is what the fault huge-token-answer sends.
	hugeAnswer = 100 << 20
	slowStep   = 500 * time.Millisecond
)

// answer holds a token answer before it is sent, so that faults can change it.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func newAnswer() *answer { return &answer{header: http.Header{}, status: http.StatusOK} }

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

// sendSpoiled sends a token answer as the faults change it. The grant has already been used and rotated by then.
func (s *Server) sendSpoiled(w http.ResponseWriter, a *answer) {
	if a.status == http.StatusOK {
		s.twist(a)
	}
	for name, values := range a.header {
		w.Header()[name] = values
	}
	switch {
	case s.Faults.Has(fault.HugeAnswer):
		w.WriteHeader(a.status)
		filler := strings.NewReader(strings.Repeat(" ", 1<<20))
		for range hugeAnswer >> 20 {
			_, _ = filler.Seek(0, io.SeekStart)
			if _, err := io.Copy(w, filler); err != nil {
				return
			}
		}
		_, _ = w.Write(a.body.Bytes())
	case s.Faults.Has(fault.SlowBody):
		w.WriteHeader(a.status)
		for _, b := range a.body.Bytes() {
			if _, err := w.Write([]byte{b}); err != nil {
				return
			}
			if http.NewResponseController(w).Flush() != nil {
				return
			}
			time.Sleep(slowStep)
		}
	case s.Faults.Has(fault.CutBody):
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body.Bytes()[:a.body.Len()/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	default:
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body.Bytes())
	}
}

// twist changes the members of a successful answer.
func (s *Server) twist(a *answer) {
	var members map[string]any
	if json.Unmarshal(a.body.Bytes(), &members) != nil {
		return
	}
	for name, change := range map[fault.Name]func(){
		fault.HugeTokens:  func() { members["access_token"] = strings.Repeat("a", hugeToken) },
		fault.BadExpiry:   func() { members["expires_in"] = -1 },
		fault.WrongType:   func() { members["token_type"] = "DPoP" },
		fault.NoRotation:  func() { delete(members, "refresh_token") },
		fault.NoScope:     func() { delete(members, "scope") },
		fault.ShortTokens: func() { members["expires_in"] = 1 },
	} {
		if s.Faults.Has(name) {
			change()
		}
	}
	a.body.Reset()
	_ = json.NewEncoder(&a.body).Encode(members)
}

// preview simulates a link scanner on the user's machine: it opens the client's redirect URI without the parameters of the
// hub.
func (s *Server) preview(redirect string) {
	client := &http.Client{Timeout: 2 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	for _, method := range []string{http.MethodHead, http.MethodGet} {
		for _, query := range []string{"", "?code=preview&state=preview", "?error=access_denied"} {
			req, err := http.NewRequest(method, redirect+query, nil)
			if err != nil {
				return
			}
			if resp, err := client.Do(req); err == nil {
				resp.Body.Close()
			}
		}
	}
}
