package main

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/agext/levenshtein"
	"github.com/shirou/gopsutil/v3/disk"
	"github.com/spf13/cobra"

	"companion/adapters/door/controlsock"
	"companion/messages"
)

func (a *app) modelsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "models", Short: "List what the manifest offers, and what is here and verified",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.control()
			if err != nil {
				return err
			}
			list, err := client.Models(cmd.Context())
			if err != nil {
				return err
			}
			if err := refused("listing the models", list.Reason); err != nil {
				return err
			}
			if a.json {
				if list.Models == nil {
					list.Models = []messages.ModelRow{}
				}
				return a.printJSON(map[string]any{"models": list.Models})
			}
			return print(a.out, modelTable(list.Models))
		},
	}
	a.jsonFlag(cmd)
	return exits(cmd, exitNotRunning, exitSignIn, exitIntegrity, exitKeychain)
}

func modelTable(rows []messages.ModelRow) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "NAME\tVERSION\tSIZE\tHERE\t")
	for _, m := range rows {
		here := "no"
		switch {
		case m.Verified:
			here = "verified"
		case m.Here:
			here = "not verified"
		case m.PartialBytes > 0:
			here = progressText(m.PartialBytes, m.Size)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", oneLine(m.Name), oneLine(m.Version), bytesText(m.Size), here,
			strings.TrimSpace(mark(m.Selected, "selected ", "")+mark(m.Default, "default", "")))
	}
	_ = w.Flush() // into memory
	return b.String()
}

// pullFailure says why a download failed, with what the daemon's reason alone does not tell: near names, and the room
// that is needed.
func (a *app) pullFailure(ctx context.Context, client *controlsock.Client, name, what string, reason messages.Reason) error {
	f := &failure{code: string(reason), message: "fetching " + oneLine(what) + ": " + explain(reason), exit: exitOf(reason)}
	list, err := client.Models(ctx)
	if err != nil {
		return f
	}
	switch reason {
	case messages.ReasonNoSuchTarget:
		if near := nearest(name, list.Models); near != "" {
			f.hint = "did you mean `companion pull " + near + "`? `companion models` lists the names"
		}
	case messages.ReasonNoSpace:
		_, places, err := a.load()
		if err != nil {
			return f
		}
		f.message += ": " + roomText(places.Models, neededBytes(name, list.Models))
	}
	return f
}

// nearest is the model whose name is most like name; empty where none is.
func nearest(name string, rows []messages.ModelRow) string {
	best, bestAt := "", 4
	for _, row := range rows {
		far := levenshtein.Distance(strings.ToLower(name), strings.ToLower(row.Name), nil)
		if strings.HasPrefix(strings.ToLower(row.Name), strings.ToLower(name)) {
			far = 1
		}
		if far < bestAt {
			best, bestAt = row.Name, far
		}
	}
	return oneLine(best)
}

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
