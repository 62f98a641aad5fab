package servicemanager

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv("SERVICEMANAGER_TEST_HANG") != "" {
		select {}
	}
	goleak.VerifyTestMain(m)
}

// X10, X12: a service manager that is missing or hangs is an error within the time that the caller gave.
func TestOutput(t *testing.T) {
	if out, err := Output(t.Context(), time.Minute, []string{os.Args[0], "-test.list", "^TestOutput$"}); err != nil || len(out) == 0 {
		t.Errorf("got %q and %v, want the output", out, err)
	}
	if _, err := Output(t.Context(), time.Minute, []string{"no-such-service-manager"}); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("got %v, want exec.ErrNotFound", err)
	}
	t.Setenv("SERVICEMANAGER_TEST_HANG", "1")
	if _, err := Output(t.Context(), 100*time.Millisecond, []string{os.Args[0]}); err == nil {
		t.Error("got no error from a program that hangs, want one")
	}
}
