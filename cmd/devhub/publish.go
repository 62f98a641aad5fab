package main

import (
	"fmt"
	"net/http"
	"runtime"

	"github.com/spf13/cobra"

	"companion/cmd/devhub/catalogue"
	"companion/cmd/devhub/place"
	"companion/messages"
)

func publishCommand() *cobra.Command {
	var dir, kind string
	var p catalogue.Publication
	c := &cobra.Command{
		Use:   "publish --dir DIR --kind model|runtime --name NAME FILE|URL",
		Short: "Sign an artifact into the catalogue: a GGUF file, or an archive with llama-server",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p.Kind = messages.ArtifactKind(kind)
			return publish(c, dir, p, args[0])
		},
	}
	dirFlag(c, &dir)
	f := c.Flags()
	f.StringVar(&kind, "kind", "", "model or runtime")
	f.StringVar(&p.Name, "name", "", "the artifact's name in the manifest")
	f.StringVar(&p.Version, "version", "", "its version (default: counted)")
	f.StringVar(&p.Platform, "platform", runtime.GOOS+"/"+runtime.GOARCH, "what a runtime runs on")
	f.BoolVar(&p.Default, "default", false, "serve it where the configuration names none")
	f.BoolVar(&p.Embedding, "embedding", false, "the model computes embeddings")
	f.StringVar(&p.Executable, "executable", "", "the program's path in the archive (default: the one llama-server)")
	f.StringArrayVar(&p.Origins, "origin", nil, "one more origin that a URL's host may redirect to")
	f.Int64Var(&p.ChunkSize, "chunk-size", 0, "`BYTES` of a chunk with a signed digest (default: 16 to 64 MiB, by size; -1: no chunks)")
	f.BoolVar(&p.Unchecked, "unchecked", false, "take the artifact as it is, for tests of a client's checks")
	f.StringVar(&p.FilesOf, "files-of", "", "sign the list of this archive's files instead, for tests of a client's checks")
	for _, name := range []string{"kind", "name"} {
		if err := c.MarkFlagRequired(name); err != nil {
			panic(err) // the flag was added above
		}
	}
	return c
}

func publish(c *cobra.Command, dir string, p catalogue.Publication, source string) error {
	opened, err := place.Open(dir)
	if err != nil {
		return err
	}
	list, err := catalogue.Open(opened)
	if err != nil {
		return err
	}
	e, err := list.Publish(c.Context(), http.DefaultClient, p, source)
	if err != nil {
		return fmt.Errorf("publishing %s: %w", p.Name, err)
	}
	isDefault := ""
	if e.Custom.Default {
		isDefault = ", default"
	}
	fmt.Fprintf(c.OutOrStdout(), "published %s %s, version %s (%d bytes%s)\n",
		e.Custom.Kind, e.Custom.Name, e.Custom.Version, e.Length, isDefault)
	return nil
}
