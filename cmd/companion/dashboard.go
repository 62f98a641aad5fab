package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/gdamore/tcell/v2"

	"companion/actors/actorkit"
	"companion/actors/logfile"
	"companion/adapters/config"
	"companion/adapters/door/controlsock"
	"companion/messages"
)

// refreshEvery is how often the dashboard asks for the status without a change.
const refreshEvery = time.Second

// logsBack is how far the log lines of the dashboard reach back, and logsKept how many it holds.
const (
	logsBack = 10 * time.Minute
	logsKept = 200
)

// dashboard is `status --watch` on a terminal. Its loop owns the screen's content; the terminal is given back and taken
// again through the hold.
type dashboard struct {
	app    *app
	s      config.Settings
	client *controlsock.Client
	log    string
	screen tcell.Screen

	events chan tcell.Event

	seen  history
	lines []logfile.Record
}

// errNoScreen says that the terminal cannot show a dashboard, such as TERM=dumb.
var errNoScreen = fmt.Errorf("the terminal %q cannot show a screen", os.Getenv("TERM"))

// watchScreen redraws the dashboard until the context or the daemon ends, or the user quits. The terminal gets back what
// it showed at the end, at every signal that can be caught, and while the command is suspended.
func (a *app) watchScreen(ctx context.Context, s config.Settings, places config.Places, client *controlsock.Client) error {
	screen, err := tcell.NewScreen()
	if err != nil {
		return errNoScreen
	}
	if _, err := client.Status(ctx); err != nil { // before the screen: an error stays readable
		return err
	}
	d := &dashboard{app: a, s: s, client: client, log: places.Log, screen: screen, events: make(chan tcell.Event)}
	if err := screen.Init(); err != nil {
		return errNoScreen
	}
	ctx, cancel := context.WithCancel(ctx)
	group := actorkit.NewGroup()
	defer group.Wait()
	defer cancel()
	quit := make(chan struct{})
	defer close(quit) // after the terminal was given back
	group.Go(func() { screen.ChannelEvents(d.events, quit) })
	resumed := make(chan struct{}, 1)
	begun := true
	release, err := a.holdTerminal(hold{
		enter: func() {
			if begun { // Init has entered
				begun = false
				return
			}
			_ = screen.Resume()
		},
		leave: d.suspend,
		redraw: func() {
			select {
			case resumed <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		return err
	}
	defer release()
	return d.run(ctx, group, resumed)
}

// suspend gives the terminal back. tcell's reader of keys blocks when its queue is full, and Suspend waits for that
// reader, so the events of a paste are taken and dropped meanwhile.
func (d *dashboard) suspend() {
	given := make(chan struct{})
	go func() {
		for {
			select {
			case <-d.events:
			case <-given:
				return
			}
		}
	}()
	_ = d.screen.Suspend()
	close(given)
}

func (d *dashboard) run(ctx context.Context, group *actorkit.Group, resumed <-chan struct{}) error {
	statuses, ended := make(chan messages.Status), make(chan error, 1)
	group.Go(func() {
		ended <- d.client.WatchEvery(ctx, refreshEvery, func(status messages.Status) error {
			return actorkit.Tell(ctx, statuses, status)
		})
	})
	records := make(chan logfile.Record)
	group.Go(func() {
		filter := logfile.Filter{Since: time.Now().Add(-logsBack)}
		// Without a log the dashboard shows the rest.
		_ = logfile.Tail(ctx, logfile.TailOptions{Path: d.log, Follow: true, Filter: filter}, func(r logfile.Record) error {
			return actorkit.Tell(ctx, records, r)
		})
	})
	for {
		redraw := true
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case p := <-group.Panicked():
			panic(p)
		case err := <-ended:
			return err
		case status := <-statuses:
			d.seen.add(status, time.Now())
		case r := <-records:
			d.lines = append(d.lines, r)
			d.lines = d.lines[max(0, len(d.lines)-logsKept):]
			redraw = false // with the next status
		case event := <-d.events:
			if d.quits(event) {
				return nil
			}
			_, redraw = event.(*tcell.EventResize)
		case <-resumed:
			_ = whileHeld(func() error { d.screen.Sync(); return nil })
		}
		if redraw {
			d.draw()
		}
	}
}

// quits handles a key and reports whether it ends the dashboard. The terminal is in raw mode, so the characters that make
// signals arrive as keys and are sent as the terminal does.
func (d *dashboard) quits(event tcell.Event) bool {
	key, ok := event.(*tcell.EventKey)
	if !ok {
		return false
	}
	switch key.Key() {
	case tcell.KeyEscape:
		return true
	case tcell.KeyCtrlC:
		return !signalOwnGroup(interruptSignal)
	case tcell.KeyCtrlZ:
		signalOwnGroup(suspendSignal)
	case tcell.KeyCtrlBackslash:
		return !signalOwnGroup(quitSignal)
	case tcell.KeyRune:
		return key.Rune() == 'q' || key.Rune() == 'Q'
	}
	return false
}

// draw shows the current values. It does nothing while the terminal is given back.
func (d *dashboard) draw() {
	last, ok := d.seen.last()
	if !ok {
		return
	}
	_ = whileHeld(func() error {
		width, height := d.screen.Size()
		page := page{width: width, height: height}
		page.show(&d.seen, d.lines, nextConfigured(d.s, last.status))
		d.screen.Clear()
		for y, row := range page.rows[:min(len(page.rows), height)] {
			x := 0
			for _, part := range row {
				x = d.put(x, y, part)
			}
		}
		d.screen.Show()
		return nil
	})
}

// put writes one part of a row and returns where the next begins.
func (d *dashboard) put(x, y int, p part) int {
	width, _ := d.screen.Size()
	style := styles[p.look]
	if !colour(d.app.out) {
		style = style.Foreground(tcell.ColorDefault)
	}
	for text := oneLine(p.text); text != "" && x < width; {
		var cells int
		text, cells = d.screen.Put(x, y, text, style)
		x += max(1, cells)
	}
	return x
}

// styles are the looks of parts. No meaning is in a color alone, and blue and orange differ for every eye.
var styles = map[look]tcell.Style{
	lookPlain: tcell.StyleDefault,
	lookBold:  tcell.StyleDefault.Bold(true),
	lookDim:   tcell.StyleDefault.Dim(true),
	lookGood:  tcell.StyleDefault.Foreground(tcell.ColorDodgerBlue).Bold(true),
	lookBad:   tcell.StyleDefault.Foreground(tcell.ColorOrange).Bold(true),
	lookGraph: tcell.StyleDefault.Foreground(tcell.ColorDodgerBlue),
}
