package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"companion/messages"
)

// historyKept is how many samples the graphs of `status --watch` reach back, about one a second.
const historyKept = 240

// sample is one status and when it came.
type sample struct {
	status messages.Status
	at     time.Time
}

// history keeps what the graphs of `status --watch` show.
type history struct{ samples []sample }

// add appends a status. It replaces one that came soon after its predecessor, at a change, so that a graph has a steady pace.
func (h *history) add(status messages.Status, at time.Time) {
	if n := len(h.samples); n > 1 && h.samples[n-1].at.Sub(h.samples[n-2].at) < refreshEvery*3/4 {
		h.samples = h.samples[:n-1]
	}
	h.samples = append(h.samples, sample{status, at})
	h.samples = h.samples[max(0, len(h.samples)-historyKept):]
}

func (h *history) last() (sample, bool) {
	if len(h.samples) == 0 {
		return sample{}, false
	}
	return h.samples[len(h.samples)-1], true
}

// values are one value of each sample.
func (h *history) values(of func(messages.Status) float64) []float64 {
	all := make([]float64, len(h.samples))
	for i, at := range h.samples {
		all[i] = of(at.status)
	}
	return all
}

// speeds are the tokens per second between the samples. A counter that falls is of another daemon.
func (h *history) speeds() []float64 {
	var all []float64
	for i := 1; i < len(h.samples); i++ {
		before, now := h.samples[i-1], h.samples[i]
		grown := float64(now.status.FrontDoor.Progress - before.status.FrontDoor.Progress)
		if seconds := now.at.Sub(before.at).Seconds(); seconds > 0 {
			all = append(all, max(0, grown)/seconds)
		}
	}
	return all
}

// graph draws values as bars from zero to their largest.
func graph(values []float64) string {
	bars := []rune("▁▂▃▄▅▆▇█")
	most := 0.0
	for _, v := range values {
		most = max(most, v)
	}
	drawn := make([]rune, len(values))
	for i, v := range values {
		step := 0
		if most > 0 {
			step = int(v / most * float64(len(bars)-1))
		}
		drawn[i] = bars[max(0, step)]
	}
	return string(drawn)
}

func bytesText(n int64) string { return humanize.IBytes(uint64(max(0, n))) }

// progressText is such as "11 of 241 MiB (4%)"; total is 0 where it is not known.
func progressText(done, total int64) string {
	if total <= 0 {
		return bytesText(done)
	}
	have, of := bytesText(done), bytesText(total)
	if number, unit, _ := strings.Cut(have, " "); strings.HasSuffix(of, " "+unit) {
		have = number
	}
	return fmt.Sprintf("%s of %s (%d%%)", have, of, done*100/total)
}

func transferRow(t messages.Transfer) string {
	return oneLine(t.Name) + " " + transferFigures(t)
}

// transferFigures are the size, the rate and the time left of a transfer.
func transferFigures(t messages.Transfer) string {
	text := progressText(t.Bytes, t.Total) + ", " + bytesText(t.BytesPerSecond) + "/s"
	if t.SecondsLeft >= 0 {
		text += ", " + (time.Duration(t.SecondsLeft) * time.Second).String() + " left"
	}
	return text
}
