package main

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// sayEvery is the interval of the lines about a running stage, where lines cannot be redrawn.
const sayEvery = 15 * time.Second

// progress shows the running stage: a line that is redrawn on a terminal, otherwise a line at its start and at intervals.
type progress struct {
	mu      sync.Mutex
	detail  string
	redraw  bool
	stop    chan struct{}
	stopped chan struct{}
}

// begin starts to show a stage.
func (d *demo) begin(s stage) {
	p := &d.shown
	p.mu.Lock()
	p.detail = s.about
	p.mu.Unlock()
	p.redraw = term.IsTerminal(int(os.Stdout.Fd()))
	p.stop, p.stopped = make(chan struct{}), make(chan struct{})
	began, every := time.Now(), sayEvery
	if p.redraw {
		every = time.Second
	}
	draw := func() {
		p.mu.Lock()
		text := fmt.Sprintf("… %-17s %8s  %s", s.name, time.Since(began).Round(time.Second), p.detail)
		p.mu.Unlock()
		if p.redraw {
			fmt.Printf("\r\x1b[K%.78s", text)
		} else {
			fmt.Println(text)
		}
	}
	if p.redraw {
		draw()
	}
	go func() {
		defer close(p.stopped)
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				draw()
			case <-p.stop:
				return
			}
		}
	}()
}

// end stops the display, and clears its line.
func (d *demo) end() {
	close(d.shown.stop)
	<-d.shown.stopped
	if d.shown.redraw {
		fmt.Print("\r\x1b[K")
	}
}

// say changes the text about the running stage.
func (p *progress) say(format string, values ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.detail = fmt.Sprintf(format, values...)
}

// Write accepts lines that a stage reports, such as the file that it downloads.
func (p *progress) Write(text []byte) (int, error) {
	if line := firstLine(text); len(line) > 0 {
		p.say("%s", line)
	}
	return len(text), nil
}
