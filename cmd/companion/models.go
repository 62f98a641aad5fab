package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/agext/levenshtein"
	"github.com/spf13/cobra"

	"companion/adapters/door/controlsock"
	"companion/adapters/runtime/store"
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
			s, places, err := a.load()
			if err != nil {
				return err
			}
			status, err := client.Status(cmd.Context())
			if err != nil {
				return err
			}
			for i, m := range list.Models {
				list.Models[i].Running = status.Runtime.PID != 0 && m.Name == status.Model.Name && m.Version == status.Model.Version
			}
			if a.json {
				if list.Models == nil {
					list.Models = []messages.ModelRow{}
				}
				onDisk, err := store.Usage(places.Data)
				if err != nil {
					return err
				}
				return a.printJSON(struct {
					Models     []messages.ModelRow `json:"models"`
					DiskBytes  int64               `json:"diskBytes"`  // of models and runtimes
					DiskBudget int64               `json:"diskBudget"` // 0: none
				}{list.Models, onDisk, s.Disk.Budget})
			}
			return print(a.out, modelTable(list.Models)+"\n"+diskText(s.Disk.Budget, places.Data)+"\n")
		},
	}
	a.jsonFlag(cmd)
	return exits(cmd, exitNotRunning, exitSignIn, exitIntegrity, exitKeychain)
}

func modelTable(rows []messages.ModelRow) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "NAME\tVERSION\tSIZE\tHERE\tUSE")
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
			strings.Join(useOf(m), ", "))
	}
	_ = w.Flush() // into memory
	return b.String()
}

// useOf says what a model is used for.
func useOf(m messages.ModelRow) (uses []string) {
	for _, use := range []struct {
		is   bool
		name string
	}{{m.Running, "running"}, {m.Selected, "selected"}, {m.LastGood, "last known good"}, {m.Default, "default"}, {m.Yours, "yours"}} {
		if use.is {
			uses = append(uses, use.name)
		}
	}
	return uses
}

// diskText says how much models and runtimes take on disk.
func diskText(budget int64, data string) string {
	used, err := store.Usage(data)
	if err != nil {
		return "What models and runtimes take on disk cannot be measured."
	}
	text := "Models and runtimes take " + bytesText(used) + " on disk"
	if budget > 0 {
		text += ", of the " + bytesText(budget) + " of disk.budget"
	}
	return text + "."
}

// budgetText is diskText with what is needed in addition.
func budgetText(budget int64, data string, needed int64) string {
	text := strings.TrimSuffix(diskText(budget, data), ".")
	if needed > 0 {
		text += ", and " + bytesText(needed) + " more are needed"
	}
	return text
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
	case messages.ReasonOverBudget:
		s, places, err := a.load()
		if err != nil {
			return f
		}
		f.message += ": " + budgetText(s.Disk.Budget, places.Data, neededBytes(name, list.Models))
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
