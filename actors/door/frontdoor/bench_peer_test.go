package frontdoor

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"companion/messages"
)

// benchPeer makes the test program the other side of a stream's benchmark: the runtime that writes
// events, and the clients that read them, in a process and a session of their own as in life. Beside the
// proxies in one process they would share their scheduler, and a proxy would be measured by how soon it
// sleeps; in one session, what one side uses of the processors counts against the other.
const benchPeer = "FRONTDOOR_BENCH_PEER"

// streams asks the peer to read so many at once.
type streams struct {
	Network, Address string
	Request          []byte
	Count            int
}

type peer struct {
	ask    *json.Encoder
	answer *json.Decoder
}

// startPeer starts the peer, and returns its runtime.
func startPeer(b *testing.B) (*peer, messages.BackEnd) {
	program, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command("setsid", program)
	cmd.Env = append(os.Environ(), benchPeer+"=1")
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
			b.Errorf("the peer: %v", err)
		}
	})
	p := &peer{json.NewEncoder(in), json.NewDecoder(out)}
	var backEnd messages.BackEnd
	if err := p.answer.Decode(&backEnd); err != nil {
		b.Fatal(err)
	}
	return p, backEnd
}

// delays is how long each event took of n streams at once.
func (p *peer) delays(b *testing.B, t target, n int) (all []time.Duration) {
	err := p.ask.Encode(streams{t.network, t.address, t.request, n})
	if err = errors.Join(err, p.answer.Decode(&all)); err != nil {
		b.Fatalf("%s: %v", t.name, err)
	}
	return all
}

// bePeer is the peer's whole life: it ends with its standard input.
func bePeer() {
	ended := false
	testing.Benchmark(func(b *testing.B) {
		if ended {
			return // testing runs what was quick once more
		}
		epoch := time.Now()
		ask, answer := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
		if err := answer.Encode(upstreamEach(b, events(epoch, 300, 2*time.Millisecond))); err != nil {
			b.Fatal(err)
		}
		for {
			var s streams
			if err := ask.Decode(&s); err == io.EOF {
				ended = true
				return
			} else if err != nil {
				b.Fatal(err)
			}
			t := target{"stream", s.Network, s.Address, s.Request}
			all := []time.Duration{}
			var wg sync.WaitGroup
			var mu sync.Mutex
			for range s.Count {
				wg.Go(func() {
					some := t.delays(b, epoch)
					mu.Lock()
					defer mu.Unlock()
					all = append(all, some...)
				})
			}
			wg.Wait()
			if err := answer.Encode(all); err != nil {
				b.Fatal(err)
			}
		}
	})
}
