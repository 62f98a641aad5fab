package browser

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// O1: the browser that a daemon with short time slices opens has the kernel's own, and the daemon keeps its.
func TestUsualSlices(t *testing.T) {
	runtime.LockOSThread() // not unlocked: the thread ends with this test
	own, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if own.Runtime == 0 {
		t.Skip("a kernel before 6.12, without time slices of a thread's own: nothing is proven by this test")
	}
	short := *own
	short.Runtime = uint64(100 * time.Microsecond)
	if err := unix.SchedSetAttr(0, &short, 0); err != nil {
		t.Fatal(err)
	}
	out := opener(t, `echo $$ > "$OUT"; read -r line < "$OUT.go" || true`)
	release := out + ".go"
	if err := unix.Mkfifo(release, 0o600); err != nil {
		t.Fatal(err)
	}
	looked := make(chan error, 1)
	go func() { looked <- look(out, release, own.Runtime) }()
	if err := Open(t.Context(), start); err != nil {
		t.Fatal(err)
	}
	if err := <-looked; err != nil {
		t.Error(err)
	}
	if after, err := unix.SchedGetAttr(0, 0); err != nil || after.Runtime != short.Runtime {
		t.Errorf("the daemon's thread has %+v now, %v", after, err)
	}
}

// look waits until the opener reads release, and then asks for its time slice.
func look(out, release string, want uint64) error {
	gate, err := os.OpenFile(release, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer gate.Close()
	text, err := os.ReadFile(out)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	got, err := unix.SchedGetAttr(pid, 0)
	if err == nil && got.Runtime != want {
		err = fmt.Errorf("the opener has a slice of %d ns", got.Runtime)
	}
	return err
}
