package main

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"companion/adapters/artifact"
	"companion/cmd/devhub/catalogue"
	"companion/cmd/devhub/place"
	"companion/messages"
)

func publishCommand() *cobra.Command {
	var dir, kind, template string
	var sampling map[string]string
	var p catalogue.Publication
	c := &cobra.Command{
		Use:   "publish --dir DIR --kind model|runtime --name NAME FILE|URL",
		Short: "Sign an artifact into the catalogue: a GGUF file, or an archive with llama-server",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p.Kind = messages.ArtifactKind(kind)
			if err := settings(&p.Settings, template, sampling); err != nil {
				return err
			}
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
	f.StringArrayVar(&p.Parts, "part", nil, "`FILE|URL` of part 2 to n of a split model, in order (default: those next to the first)")
	f.StringVar(&p.Projector, "mmproj", "", "`FILE|URL` of the model's projector for pictures or sound")
	f.StringVar(&p.Draft, "draft", "", "`FILE|URL` of a small model with the same vocabulary, for speculation")
	f.IntVar(&p.Settings.Context, "context", 0, "`TOKENS` of a request where the user sets no number (default: what it was trained for)")
	f.StringVar(&template, "chat-template", "", "`FILE` with a Jinja template in place of the model's own")
	f.StringToStringVar(&sampling, "sampling", nil, "defaults of a request's `FIELD=NUMBER`s, such as temperature=0.7,top_p=0.9")
	f.BoolVar(&p.Unchecked, "unchecked", false, "take the artifact as it is, for tests of a client's checks")
	f.StringVar(&p.FilesOf, "files-of", "", "sign the list of this archive's files instead, for tests of a client's checks")
	for _, name := range []string{"kind", "name"} {
		if err := c.MarkFlagRequired(name); err != nil {
			panic(err) // the flag was added above
		}
	}
	return c
}

// settings reads --chat-template and --sampling.
func settings(s *messages.ModelSettings, template string, sampling map[string]string) error {
	if template != "" {
		data, err := os.ReadFile(template)
		if err != nil {
			return fmt.Errorf("reading the chat template: %w", err)
		}
		if len(data) == 0 || len(data) > artifact.MaxTemplate {
			return fmt.Errorf("the chat template has %d bytes, want 1 to %d", len(data), artifact.MaxTemplate)
		}
		s.ChatTemplate = string(data)
	}
	for name, text := range sampling {
		r, known := artifact.Sampling[name]
		switch {
		case !known:
			names := slices.Sorted(maps.Keys(artifact.Sampling))
			return fmt.Errorf("--sampling has no field %q: accepted are %s", name, strings.Join(names, ", "))
		case !r.Has(text):
			return fmt.Errorf("--sampling %s=%s is not accepted: use a decimal number from %v to %v", name, text, r.Min, r.Max)
		}
	}
	s.Sampling = sampling
	return nil
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
	length, files := e.Length, ""
	if parts := e.Further(); len(parts) > 0 {
		for _, p := range parts {
			length += p.Length
		}
		files = fmt.Sprintf(" in %d files", len(parts)+1)
	}
	fmt.Fprintf(c.OutOrStdout(), "published %s %s, version %s (%d bytes%s%s)\n",
		e.Custom.Kind, e.Custom.Name, e.Custom.Version, length, files, isDefault)
	return nil
}
