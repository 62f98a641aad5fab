package faults

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"companion/e2e/harness"
)

// cli.md (run), R2: a service manager that asks for it is notified that the daemon is ready, of its status,
// that it lives and that it stops. The runtime gets no variable of the service manager.
func underSystemd(t *testing.T, c *harness.Companion) {
	path := filepath.Join(c.Home, "notify.sock")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	c.Extra = []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=400000"}
	defer func() { c.Extra = nil }()
	c.Start()
	status := c.Available()

	heard := map[string]int{}
	hear := func(until string, times int) {
		t.Helper()
		if err := socket.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		for buffer := make([]byte, 4096); heard[until] < times; {
			n, err := socket.Read(buffer)
			if err != nil {
				t.Fatalf("%q was heard %d times of %d, in all %v: %v", until, heard[until], times, heard, err)
			}
			heard[string(buffer[:n])]++
		}
	}
	hear("READY=1", 1)
	hear("WATCHDOG=1", 3)
	hear(fmt.Sprintf("STATUS=available: %s at %s", status.Model.Name, status.FrontDoor.BaseURL), 1)
	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", status.Runtime.PID))
	if err != nil {
		t.Fatal(err)
	}
	if len(environment) == 0 || strings.Contains(string(environment), "NOTIFY_SOCKET") || strings.Contains(string(environment), "WATCHDOG") {
		t.Errorf("got the runtime's environment %q, want it without variables of systemd", environment)
	}
	c.Stop()
	hear("STOPPING=1", 1)
}
