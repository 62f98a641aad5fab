package main

import (
	"context"
	"math"
	"path/filepath"

	"github.com/shirou/gopsutil/v3/disk"

	"companion/adapters/config"
	"companion/adapters/door/controlsock"
	"companion/messages"
)

// neededBytes is what is still missing of the named model, or of the selected one; 0 where it is not known.
func neededBytes(name string, rows []messages.ModelRow) int64 {
	for _, row := range rows {
		if row.Name == name || name == "" && row.Selected {
			return max(0, row.Size-row.PartialBytes)
		}
	}
	return 0
}

// diskOf reads the disk of a folder, or of its nearest parent where it is not there yet.
func diskOf(folder string) (*disk.UsageStat, error) {
	for {
		usage, err := disk.Usage(folder)
		if err == nil || filepath.Dir(folder) == folder {
			return usage, err
		}
		folder = filepath.Dir(folder)
	}
}

// roomText says how much room a folder has, and how much is needed.
func roomText(folder string, needed int64) string {
	text := folder
	if usage, err := diskOf(folder); err == nil {
		text += " has " + bytesText(int64(min(usage.Free, math.MaxInt64))) + " free"
	}
	if needed > 0 {
		text += ", " + bytesText(needed) + " are needed"
	}
	return text
}

// room is what a folder of the companion needs on its disk.
type room struct {
	folder string
	least  uint64
	what   string
}

// roomNeeded lists the folders that the daemon writes to.
func roomNeeded(places config.Places) []room {
	return []room{
		{places.Data, leastFree, "a small model"},
		{places.State, leastState, "the log and the record of the runtime"},
		{places.Runtime, leastState, "each start of the runtime"},
	}
}

// lacksSpace reports whether a full disk is why local inference is not available.
func lacksSpace(s messages.Status) bool {
	return !s.CompanionAvailable && (s.Reason == messages.ReasonNoSpace || s.Manifest.Reason == messages.ReasonNoSpace ||
		s.Runtime.LastExit != nil && s.Runtime.LastExit.Reason == messages.ReasonNoSpace)
}

// spaceStep is the next step on a full disk: the folder, its free space and what is needed.
func spaceStep(ctx context.Context, client *controlsock.Client, places config.Places, s messages.Status) string {
	var needed int64
	if !s.Facts.Verified {
		if list, err := client.Models(ctx); err == nil {
			needed = neededBytes("", list.Models)
		}
		return "free space: " + roomText(places.Models, needed) + "; then companion pull"
	}
	for _, at := range roomNeeded(places)[1:] {
		if usage, err := diskOf(at.folder); err == nil && usage.Free < at.least {
			return "free space: " + roomText(at.folder, int64(at.least)) + "; then companion start"
		}
	}
	return nextStep(messages.ReasonNoSpace)
}
