//go:build linux

package store

import (
	"bytes"
	"crypto/sha256"
	"os"
	"strings"
	"testing"

	"companion/messages"
)

// M15: a download that would pass the budget is refused before the first byte, with the numbers. What is there stays.
func TestBudget(t *testing.T) {
	s, a := open(t), model()
	must(t, put(s, a, content))
	size := int64(len(content))
	other := bytes.Repeat([]byte("other "), 50_000)
	b := messages.Artifact{Name: "o", Version: "1", Kind: messages.KindModel, SHA256: sha256.Sum256(other), Size: size}
	for _, c := range []struct {
		budget int64
		want   messages.Reason
	}{{2*size - 1, messages.ReasonOverBudget}, {size, messages.ReasonOverBudget}, {1, messages.ReasonOverBudget}, {2 * size, messages.ReasonOK}, {0, messages.ReasonOK}} {
		s.SetBudget(c.budget)
		for name, begin := range map[string]func() (interface{ Discard() error }, error){
			"whole":  func() (interface{ Discard() error }, error) { return s.Accumulate(b, source) },
			"chunks": func() (interface{ Discard() error }, error) { return s.Assemble(t.Context(), b) },
		} {
			acc, err := begin()
			if reasonOf(err) != c.want {
				t.Errorf("%s, budget %d: got %v, want %s", name, c.budget, err, c.want)
			}
			if err != nil {
				if text := err.Error(); !strings.Contains(text, "needs 293 KiB") || !strings.Contains(text, "293 KiB are used") {
					t.Errorf("%s, budget %d: got %q, want the numbers", name, c.budget, text)
				}
				continue
			}
			must(t, acc.Discard())
		}
	}
	if left := names(t, s, "partial"); len(left) != 0 {
		t.Errorf("got partial files %v, want none", left)
	}
	if _, err := s.Model(t.Context(), a, true); err != nil {
		t.Errorf("the model that was there: got %v, want it verified", err)
	}
}

// M15: two transfers at the same time do not pass the budget together, and a partial download counts with its bytes.
func TestBudgetOfTransfers(t *testing.T) {
	s, a := open(t), model()
	s.SetBudget(a.Size + 100_000)
	acc, err := s.Accumulate(a, source)
	must(t, err)
	small := messages.Artifact{Name: "s", Version: "1", Kind: messages.KindModel, SHA256: [32]byte{1}, Size: 100_001}
	if _, err := s.Accumulate(small, source); reasonOf(err) != messages.ReasonOverBudget {
		t.Errorf("a second transfer: got %v, want over_budget", err)
	}
	must(t, acc.Begin(0, ""))
	_, err = acc.Write(content[:1000])
	must(t, err)
	small.Size = 100_000
	second, err := s.Accumulate(small, source)
	must(t, err, second.Discard(), acc.Abort())
	if used, err := s.Used(); err != nil || used != 1000 {
		t.Errorf("used: got %d, %v; want the 1000 bytes of the partial file", used, err)
	}
	// The rest of the transfer fits, although its own bytes count.
	acc, err = s.Accumulate(a, source)
	must(t, err, acc.Discard())
}

// M15, M12: a runtime needs room for its archive and its files.
func TestBudgetOfRuntime(t *testing.T) {
	s := open(t)
	t.Cleanup(func() { cleanup(s) })
	a, data := packedData(t, "library")
	s.SetBudget(a.Size + 13)
	if _, err := s.Accumulate(a, source); reasonOf(err) != messages.ReasonOverBudget {
		t.Errorf("got %v, want over_budget", err)
	}
	s.SetBudget(a.Size + 14)
	must(t, put(s, a, data))
	if _, err := s.Unpack(t.Context(), a); err != nil {
		t.Errorf("got %v, want the runtime unpacked", err)
	}
	if _, err := os.Stat(s.runtimeDir(a)); err != nil {
		t.Error(err)
	}
}
