package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"companion/messages"
)

// width is how many seconds the small graphs of `status --watch` reach back.
const width = 30

// history keeps what the small graphs show. A nil history shows none.
type history struct {
	resident, percent []float64
}

func (h *history) add(r messages.StatusRuntime) {
	h.resident = latest(append(h.resident, float64(r.ResidentBytes)))
	h.percent = latest(append(h.percent, r.CPUPercent))
}

func latest(values []float64) []float64 { return values[max(0, len(values)-width):] }

func (h *history) memory() string {
	if h == nil {
		return ""
	}
	return graph(h.resident)
}

func (h *history) cpu() string {
	if h == nil {
		return ""
	}
	return graph(h.percent)
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
