package frontdoor

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"companion/messages"
)

// benchPeer makes the test program a helper of the stream benchmark, in its own process and session. "peer" plays
// both the runtime, which writes events, and the clients, which read them: one thread that never sleeps during the
// measurement, because its own wake-up time is not a property of the proxies. "awake" runs at the lowest priority and
// keeps the other processors from sleeping: waking one takes longer here than both proxies together.
const benchPeer = "FRONTDOOR_BENCH_PEER"

// streams asks the peer for bursts of events, one event for each of Count streams, through the targets in
// turn.
type streams struct {
	Targets []streamTarget
	Count   int
	Bursts  int // per target
}

type streamTarget struct {
	Address string
	Request []byte
}

// bursts is the number of bursts per target. With fewer the p99 is mostly noise.
var bursts = flag.Int("bursts", 32000, "bursts of streamed events per target")

// burstPause is the time between two bursts, in which the targets finish their work on the last one.
const burstPause = time.Millisecond

// BenchmarkFiguresStream: delay of streamed events with 1 and 8 streams. All streams get an event at once, as from
// llama-server after each step. p50 and p99 are at most those of the bare proxy.
func BenchmarkFiguresStream(b *testing.B) {
	startPeer(b, "awake", "chrt", "--idle", "0")
	ask, answer := startPeer(b, "peer")
	var backEnd messages.BackEnd
	if err := answer.Decode(&backEnd); err != nil {
		b.Fatal(err)
	}
	_, bare, door := stage(b, "/v1/chat/completions", benchStream, backEnd, nil)
	both := []streamTarget{{bare.address, bare.request}, {door.address, door.request}}
	for b.Loop() {
		for _, n := range []int{1, 8} {
			var took [][]time.Duration
			if err := errors.Join(ask.Encode(streams{both, n, *bursts}), answer.Decode(&took)); err != nil {
				b.Fatal(err)
			}
			for _, q := range []float64{0.5, 0.99} {
				x, y := quantile(took[0], q), quantile(took[1], q)
				b.ReportMetric(float64(y)/float64(x), fmt.Sprintf("stream%d_p%g_ratio", n, q*100))
				b.Logf("%d streams, p%g: bare %v, door %v: ratio %.2f (must be at most 1)", n, q*100, x, y, float64(y)/float64(x))
			}
		}
	}
}

func startPeer(b *testing.B, name string, by ...string) (*json.Encoder, *json.Decoder) {
	program, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command("setsid", append(by, program)...)
	cmd.Env = append(os.Environ(), benchPeer+"="+name)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			b.Errorf("the %s: %v", name, err)
		}
	})
	return json.NewEncoder(in), json.NewDecoder(out)
}

// init runs a helper process, which ends when its standard input is closed. In the test process it returns.
func init() {
	var err error
	switch os.Getenv(benchPeer) {
	case "":
		return
	case "peer":
		runtime.LockOSThread()
		var dir string
		if dir, err = os.MkdirTemp("", "peer"); err == nil {
			err = errors.Join(servePeer(filepath.Join(dir, "s")), os.RemoveAll(dir))
		}
	case "awake":
		stayAwake()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the peer:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// stayAwake keeps every processor busy except the one of the peer.
func stayAwake() {
	// With autogroups the kernel divides the processors by session, and this one would get as much as the proxies.
	_ = os.WriteFile("/proc/self/autogroup", []byte("19"), 0)
	for range runtime.NumCPU() - 1 {
		go func() {
			for {
				runtime.KeepAlive(nil)
			}
		}()
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func servePeer(path string) error {
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Bind(listener, &unix.SockaddrUnix{Name: path}), unix.Listen(listener, 64)); err != nil {
		return err
	}
	ask, answer := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	if err := answer.Encode(messages.BackEnd{Network: "unix", Address: path}); err != nil {
		return err
	}
	for {
		var s streams
		if err := ask.Decode(&s); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond) // the proxies note that the last time's connections are closed
		took, err := s.measure(listener)
		if err == nil {
			err = answer.Encode(took)
		}
		if err != nil {
			return err
		}
	}
}

// measure keeps all streams of all targets open at once. The targets take turns burst by burst, so that other work on
// the machine affects all of them equally.
func (s streams) measure(listener int) (took [][]time.Duration, err error) {
	var rigs []*streamRig
	for _, t := range s.Targets {
		r, err := openStreams(t, s.Count, listener)
		defer r.close()
		if err != nil {
			return nil, fmt.Errorf("opening the streams: %w", err)
		}
		rigs = append(rigs, r)
	}
	took = make([][]time.Duration, len(rigs))
	for i := range s.Bursts * len(rigs) {
		turn := (i + i/len(rigs)) % len(rigs) // each target comes first as often as the others
		for end := time.Now().Add(burstPause); time.Now().Before(end); {
			runtime.KeepAlive(nil) // no sleep
		}
		delays, err := rigs[turn].burst()
		if err != nil {
			return nil, fmt.Errorf("burst %d: %w", i, err)
		}
		took[turn] = append(took[turn], delays...)
	}
	for _, r := range rigs {
		if err := r.finish(); err != nil {
			return nil, fmt.Errorf("ending the streams: %w", err)
		}
	}
	return took, nil
}

// streamRig has the client and the upstream connections of a target's streams.
type streamRig struct {
	clients, upstreams []int
	got                [4096]byte
}

func openStreams(t streamTarget, n, listener int) (*streamRig, error) {
	r := new(streamRig)
	address, err := netip.ParseAddrPort(t.Address)
	if err != nil {
		return r, err
	}
	for range n {
		client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return r, err
		}
		r.clients = append(r.clients, client)
		err = unix.Connect(client, &unix.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()})
		if err == nil {
			_, err = unix.Write(client, t.Request)
		}
		if err != nil {
			return r, err
		}
		upstream, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err != nil {
			return r, err
		}
		r.upstreams = append(r.upstreams, upstream)
		if err := r.await(upstream, "}"); err != nil {
			return r, err
		}
		// The bare proxy aborts a request that is answered before the proxy has finished sending it.
		time.Sleep(20 * time.Millisecond)
		if _, err := unix.Write(upstream, []byte(benchHead+chunk(": begun\n\n"))); err != nil {
			return r, err
		}
		if err := r.await(client, chunk(": begun\n\n")); err != nil {
			return r, err
		}
	}
	return r, nil
}

// await reads a message that ends with text.
func (r *streamRig) await(fd int, text string) error {
	for all := []byte(nil); !bytes.HasSuffix(all, []byte(text)); {
		n, err := unix.Read(fd, r.got[:])
		if all = append(all, r.got[:max(n, 0)]...); err != nil || n == 0 {
			return errors.Join(fmt.Errorf("got a message that ends with %q, want %q", all, text), err)
		}
	}
	return nil
}

// burst writes one event to each stream and returns the time that each took to reach its client.
func (r *streamRig) burst() (delays []time.Duration, err error) {
	begin := time.Now()
	for _, upstream := range r.upstreams {
		if _, err := unix.Write(upstream, []byte(chunk(fmt.Sprintf("data: {\"t\":%d}\n\n", time.Since(begin))))); err != nil {
			return nil, err
		}
	}
	come := make([]bool, len(r.clients))
	for len(delays) < len(r.clients) {
		for i, client := range r.clients {
			if come[i] {
				continue
			}
			n, _, err := unix.Recvfrom(client, r.got[:], unix.MSG_DONTWAIT)
			now := time.Since(begin)
			if err == unix.EAGAIN || err == unix.EINTR {
				if now > 10*time.Second {
					return nil, errors.New("an event did not come")
				}
				continue
			}
			_, text, found := bytes.Cut(r.got[:max(n, 0)], []byte(`{"t":`))
			text, _, ended := bytes.Cut(text, []byte("}\n\n"))
			sent, bad := strconv.ParseInt(string(text), 10, 64)
			if err != nil || !found || !ended || bad != nil {
				return nil, errors.Join(fmt.Errorf("got %q, want an event", r.got[:max(n, 0)]), err)
			}
			come[i], delays = true, append(delays, now-time.Duration(sent))
		}
	}
	return delays, nil
}

// finish ends the streams and reads each client's answer to its end.
func (r *streamRig) finish() error {
	for _, upstream := range r.upstreams {
		if _, err := unix.Write(upstream, []byte(chunk("data: [DONE]\n\n")+"0\r\n\r\n")); err != nil {
			return err
		}
	}
	for _, client := range r.clients {
		if err := r.await(client, "0\r\n\r\n"); err != nil {
			return err
		}
	}
	return nil
}

func (r *streamRig) close() {
	for _, fd := range append(r.clients, r.upstreams...) {
		_ = unix.Close(fd)
	}
}
