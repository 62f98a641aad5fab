package frontdoor

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// nginx runs one worker in front of the same upstream, as a plain proxy: keepalive, unbuffered, no
// log. It is the "nginx" on the path, or what NGINX names; without one there is nothing to compare.
func nginx(b *testing.B, upstream string) (address string, found bool) {
	program := os.Getenv("NGINX")
	if program == "" {
		var err error
		if program, err = exec.LookPath("nginx"); err != nil {
			return "", false
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	address = l.Addr().String()
	_ = l.Close()
	dir := b.TempDir()
	user := "" // the worker must reach the upstream's private folder
	if os.Getuid() == 0 {
		user = "user root;"
	}
	config := fmt.Sprintf(`%[4]s daemon off; worker_processes 1; pid %[1]s/pid; error_log %[1]s/error;
events { worker_connections 1024; }
http {
	access_log off; keepalive_requests 1000000;
	client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
	upstream u { server unix:%[2]s; keepalive 128; keepalive_requests 1000000; }
	server { listen %[3]s; location / { proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; } }
}
`, dir, upstream, address, user)
	path := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		b.Fatal(err)
	}
	command := exec.Command(program, "-p", dir, "-c", path, "-e", filepath.Join(dir, "error"))
	if err := command.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = command.Process.Signal(os.Interrupt)
		_ = command.Wait()
	})
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
			return address, true
		}
		if time.Now().After(end) {
			b.Fatalf("nginx did not start: got %v, want a connection", err)
		}
	}
}

// BenchmarkFiguresNginx prints the door's figures as ratios of nginx's.
func BenchmarkFiguresNginx(b *testing.B) {
	backEnd := lean(b, fixedAnswer(benchAnswer))
	direct, bare, door := stage(b, "/v1/chat/completions", benchChat, backEnd, nil)
	address, found := nginx(b, backEnd.Address)
	if !found {
		b.Log("no nginx here: nothing is compared (Debian package nginx, or NGINX=path)")
		return
	}
	other := bare
	other.name, other.address = "nginx", address
	for b.Loop() {
		took := map[string][]time.Duration{}
		for range 400 {
			for _, t := range []target{direct, other, door} {
				c := t.dial(b)
				c.do(b)
				for range 20 {
					begin := time.Now()
					if c.do(b) != http.StatusOK {
						b.Fatalf("%s: got another status, want 200", t.name)
					}
					took[t.name] = append(took[t.name], time.Since(begin))
				}
				_ = c.c.Close()
			}
		}
		base := quantile(took["direct"], 0.5)
		x, y := quantile(took["nginx"], 0.5)-base, quantile(took["door"], 0.5)-base
		b.ReportMetric(float64(y)/float64(x), "p50_ratio")
		b.Logf("p50: nginx +%v, door +%v: ratio %.2f", x, y, float64(y)/float64(x))
		for _, n := range []int{8, 64} {
			var theirs, ours float64
			const rounds = 6
			for range rounds {
				theirs += other.rate(b, n, 300*time.Millisecond)
				ours += door.rate(b, n, 300*time.Millisecond)
			}
			b.ReportMetric(ours/theirs, fmt.Sprintf("rate%d_ratio", n))
			b.Logf("%d connections: nginx %.0f/s, door %.0f/s: ratio %.2f", n, theirs/rounds, ours/rounds, ours/theirs)
		}
	}
}
