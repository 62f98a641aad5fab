package spawn

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Bounds of the kept output of the runtime (R8). A longer line is cut, not split.
const (
	keptLines = 64
	lineBytes = 512
	// Pieces of at most lineBytes that are read at once, and per second after that. Above that rate the pipe fills, and
	// the writer waits. llama-server prints some hundreds of lines at its start and about ten per request, and never
	// reaches the rate.
	piecesAtOnce    = 20_000
	piecesPerSecond = 5_000
	// breath is how far reading may be ahead of its rate before it pauses: a pause for each line would cost more than
	// the line.
	breath = 100 * time.Millisecond
	// lingering is how long the pipe may stay open after the group has ended.
	lingering = 200 * time.Millisecond
)

// output reads one pipe into a ring of scrubbed lines. The reading goroutine ends when all writers have ended, or
// shortly after close. Its panics, and panics of tell, go to panics.
type output struct {
	read, write *os.File
	scrub       *scrubber
	tell        func(string)
	pace        *rate.Limiter
	panics      chan any
	ended       chan struct{}
	closing     sync.Once
	closed      chan struct{}

	mu   sync.Mutex
	ring []string
}

func newOutput(tell func(string), secret ...string) *output {
	return &output{
		tell: tell, scrub: newScrubber(secret...), pace: rate.NewLimiter(piecesPerSecond, piecesAtOnce),
		panics: make(chan any, 1), closed: make(chan struct{}),
	}
}

// open makes the pipe and returns the child's end; closeWriter closes the daemon's copy of it. It may be called again
// when all holders of the child's end have ended.
func (o *output) open() (*os.File, error) {
	if o.read != nil { // of an earlier stage, which has ended
		_ = o.read.SetReadDeadline(time.Now().Add(lingering))
		<-o.ended
		_ = o.read.Close()
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making the output pipe: %w", err)
	}
	o.read, o.write, o.ended = read, write, make(chan struct{})
	go o.pump()
	return write, nil
}

func (o *output) closeWriter() { _ = o.write.Close() }

func (o *output) close() {
	if o.read == nil {
		return
	}
	o.closing.Do(func() {
		close(o.closed)
		_ = o.write.Close()
		_ = o.read.SetReadDeadline(time.Now().Add(lingering))
		<-o.ended
		_ = o.read.Close()
	})
}

func (o *output) pump() {
	defer close(o.ended)
	defer func() {
		if p := recover(); p != nil {
			hand(o.panics, p)
			_, _ = io.Copy(io.Discard, o.read) // a writer that blocks on the pipe could not handle SIGTERM
		}
	}()
	o.drain(o.read)
}

// drain keeps the lines of r until its end, at a bounded rate until close.
func (o *output) drain(r io.Reader) {
	reader := bufio.NewReaderSize(r, lineBytes)
	for {
		line, err := reader.ReadSlice('\n')
		if len(line) > 0 {
			o.keep(string(line))
		}
		o.rest()
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = reader.ReadSlice('\n')
			o.rest()
		}
		if err != nil {
			return
		}
	}
}

// rest pauses after pieces that came too fast. After the end it does not pause.
func (o *output) rest() {
	ahead := o.pace.Reserve().Delay()
	if ahead < breath {
		return
	}
	timer := time.NewTimer(ahead)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-o.closed:
	}
}

func (o *output) keep(raw string) {
	line := o.scrub.clean(strings.TrimRight(raw, "\r\n"))
	o.mu.Lock()
	if len(o.ring) == keptLines {
		o.ring = append(o.ring[:0], o.ring[1:]...)
	}
	o.ring = append(o.ring, line)
	o.mu.Unlock()
	if o.tell != nil {
		o.tell(line)
	}
}

// lines returns the newest lines, oldest first.
func (o *output) lines() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.ring...)
}

// scrubber removes paths and digests from a line.
type scrubber struct{ known *strings.Replacer }

var (
	// A path starts with a slash and has another one, so that rates such as "tokens/s" stay.
	anyPath   = regexp.MustCompile(`(?:[A-Za-z]:)?[/\\](?:[^\s'"<>|:;,()\[\]{}/\\]+[/\\])+[^\s'"<>|:;,()\[\]{}]*`)
	anyDigest = regexp.MustCompile(`\b[0-9A-Fa-f]{32,}\b`)
	unprinted = regexp.MustCompile(`\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0a-\x1f\x7f]`)
)

func newScrubber(secret ...string) *scrubber {
	var pairs []string
	for _, s := range secret {
		if s != "" {
			pairs = append(pairs, s, "[path]")
		}
	}
	return &scrubber{strings.NewReplacer(pairs...)}
}

func (s *scrubber) clean(line string) string {
	line = strings.ToValidUTF8(line, "\uFFFD")
	line = unprinted.ReplaceAllString(line, "")
	line = s.known.Replace(line)
	line = anyDigest.ReplaceAllString(line, "[digest]")
	return anyPath.ReplaceAllString(line, "[path]")
}
