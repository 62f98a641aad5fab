package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"companion/cmd/devhub/fault"
	"companion/cmd/devhub/place"
	"companion/cmd/devhub/server"
)

const warning = `
  ****************************************************************
  *  DEVELOPMENT HUB. NOT FOR PRODUCTION. Its keys, passwords    *
  *  and tokens lie in its directory; its faults are on purpose. *
  ****************************************************************
`

func serveCommand() *cobra.Command {
	var dir string
	var faults []string
	var o server.Options
	c := &cobra.Command{
		Use:   "serve --dir DIR",
		Short: "Serve the hub and its artifacts; the first line on standard output is JSON",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			if o.Faults, err = fault.Parse(faults); err != nil {
				return err
			}
			return serve(c, dir, o)
		},
	}
	dirFlag(c, &dir)
	c.Flags().StringArrayVar(&faults, "fault", nil, "play a fault (see devhub faults); may be repeated")
	c.Flags().StringVar(&o.AutoApprove, "auto-approve", "", "sign in this user without a page")
	c.Flags().IntVar(&o.Port, "port", 0, "port of the hub (0: the one kept in the directory)")
	c.Flags().IntVar(&o.ArtifactPort, "artifact-port", 0, "port of the artifacts (0: the one kept in the directory)")
	return c
}

func serve(c *cobra.Command, dir string, o server.Options) error {
	stderr := c.ErrOrStderr()
	fmt.Fprint(stderr, warning)
	p, err := place.Open(dir)
	if err != nil {
		return err
	}
	unlock, err := p.LockServing()
	if err != nil {
		return err
	}
	defer unlock()
	o.Log = logger(stderr)
	hub, err := server.New(p, o)
	if err != nil {
		return err
	}
	err = json.NewEncoder(c.OutOrStdout()).Encode(map[string]string{
		"hub": p.HubURL(), "artifacts": p.ArtifactURL(), "caFile": p.CAFile(), "rootFile": p.RootFile(),
	})
	if err != nil {
		return fmt.Errorf("writing the hub's addresses: %w", err)
	}
	if o.AutoApprove == "" {
		fmt.Fprintf(stderr, "Users and passwords are in %s:\n", p.Path("users.json"))
		for _, u := range hub.Users() {
			fmt.Fprintf(stderr, "  %-8s %s\n", u.ID, u.Role)
		}
	}
	return hub.Serve(c.Context())
}

func logger(out io.Writer) *zap.Logger {
	w := zapcore.AddSync(out)
	config := zap.NewProductionEncoderConfig()
	config.EncodeTime = zapcore.ISO8601TimeEncoder
	config.EncodeDuration = zapcore.StringDurationEncoder
	return zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(config), zapcore.Lock(w), zap.InfoLevel))
}
