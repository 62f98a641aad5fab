package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"companion/adapters/authority/tuf"
	"companion/adapters/config"
	"companion/adapters/door/controlsock"
	"companion/adapters/gguf"
	"companion/adapters/runtime/archive"
	"companion/adapters/runtime/store"
	"companion/messages"
	"companion/supervisor"
)

// addition is what `add` was asked for, and what it found out.
type addition struct {
	app      *app
	settings config.Settings
	places   config.Places
	own      *tuf.Own
	have     tuf.Catalogue // the user's own catalogue before

	source    string
	file      string   // on this machine
	parts     []string // the parts 2 to n of a split model, on this machine
	imported  []store.Imported
	fetched   bool   // file is a download of this command
	unlock    func() // gives back the lock of the download
	name      string
	digest    *[32]byte // the given one; nil: none
	kind      string
	asDefault bool
	copies    bool
	urls      []string // of a download, and where it may come from again
	origins   []string
	target    tuf.OwnTarget
}

func (a *app) addCommand() *cobra.Command {
	d := addition{app: a}
	digest := ""
	cmd := &cobra.Command{
		Use: "add FILE|URL", Short: "Serve a model or a llama.cpp archive of your own, without a hub",
		Long: "Add a GGUF model, or a llama.cpp release archive (tar.gz or zip), to your own catalogue on this machine. What is in\n" +
			"it is served without a hub and without a sign-in, checked and confined like everything else.\n\n" +
			"  companion add llama-b6900-bin-ubuntu-x64.tar.gz\n" +
			"  companion add gemma-3-270m.gguf\n" +
			"  companion run\n\n" +
			"A URL must be https and needs --sha256, because the host that serves the bytes cannot vouch for them.\n" +
			"A big file is not copied: on Btrfs and XFS the two share their blocks; elsewhere on the same disk your file stays the\n" +
			"only one, gets a second name in the data folder and becomes read-only. --copy makes a copy instead.",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			d.source = given[0]
			var err error
			if d.settings, d.places, err = a.load(); err != nil {
				return err
			}
			if d.digest, err = parseDigest(digest); err != nil {
				return err
			}
			d.own = supervisor.OwnCatalogue(d.settings, d.places)
			return d.run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&d.name, "name", "", "`NAME` in the catalogue; default: from the file's name")
	cmd.Flags().StringVar(&digest, "sha256", "", "the SHA-256 `DIGEST` that the file must have; a URL needs it")
	cmd.Flags().StringVar(&d.kind, "kind", "", "`model` or runtime; default: from the file's content")
	cmd.Flags().BoolVar(&d.asDefault, "default", false, "use it where the configuration names no model, also before the hub's default")
	cmd.Flags().BoolVar(&d.copies, "copy", false, "copy the file, so that yours stays as it is")
	a.jsonFlag(cmd)
	return exits(cmd, exitIntegrity)
}

// parseDigest reads --sha256.
func parseDigest(text string) (*[32]byte, error) {
	if text == "" {
		return nil, nil
	}
	data, err := hex.DecodeString(strings.ToLower(strings.TrimPrefix(text, "sha256:")))
	if err != nil || len(data) != 32 {
		return nil, usageFailure(fmt.Sprintf("--sha256 takes 64 hexadecimal digits; you gave %q", oneLine(text)),
			"`sha256sum FILE` prints it")
	}
	digest := [32]byte(data)
	return &digest, nil
}

func (d *addition) run(ctx context.Context) error {
	var err error
	if d.kind != "" && d.kind != string(messages.KindModel) && d.kind != string(messages.KindRuntime) {
		return usageFailure(fmt.Sprintf("--kind is model or runtime; you gave %q", oneLine(d.kind)), "leave it out: the file's content says which")
	}
	if d.have, err = d.own.Load(); err != nil {
		return err
	}
	d.unlock = func() {}
	defer func() { d.unlock() }()
	unlock, err := d.lockBudget(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := d.locate(ctx); err != nil {
		return err
	}
	if d.fetched {
		defer func() { _, _ = os.Remove(d.file), os.Remove(d.file+store.ImportTag) }() // before it is unlocked
	}
	if err := d.describe(ctx); err != nil {
		return err
	}
	if err := d.checkName(); err != nil {
		return err
	}
	imported, err := d.bring(ctx)
	if err != nil {
		return err
	}
	if err := d.own.Add(ctx, d.target); err != nil {
		err = errors.Join(err, d.undo())
		return err
	}
	return d.report(ctx, imported)
}

// locate finds the file on this machine, or downloads it.
func (d *addition) locate(ctx context.Context) error {
	if strings.Contains(d.source, "://") {
		return d.download(ctx)
	}
	info, err := os.Lstat(d.source)
	name := oneLine(d.source)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &failure{code: "no_file", message: "there is no file " + name, hint: "check the path", exit: exitFailed}
	case err != nil:
		return &failure{code: "no_file", message: fmt.Sprintf("%s cannot be looked at: %v", name, err), exit: exitFailed}
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := filepath.EvalSymlinks(d.source)
		hint := "it leads nowhere"
		if err == nil {
			hint = "give the file itself: companion add " + oneLine(target)
		}
		return &failure{code: "not_a_file", message: name + " is a symbolic link", hint: hint, exit: exitFailed}
	case info.IsDir():
		return &failure{code: "not_a_file", message: name + " is a folder", hint: "give the GGUF file, or the archive as it was downloaded", exit: exitFailed}
	case !info.Mode().IsRegular():
		return &failure{code: "not_a_file", message: name + " is not a regular file", exit: exitFailed}
	case info.Size() == 0:
		return &failure{code: "not_a_file", message: name + " is empty", hint: "download it again", exit: exitFailed}
	}
	d.file, err = filepath.Abs(d.source)
	return err
}

// describe reads the file and says what it is.
func (d *addition) describe(ctx context.Context) error {
	kind, err := kindOf(d.file)
	if err != nil {
		return err
	}
	if kind == "" || d.kind != "" && d.kind != kind {
		want := "a GGUF model, or a tar.gz or zip archive with llama-server"
		switch d.kind {
		case string(messages.KindModel):
			want = "a GGUF model"
		case string(messages.KindRuntime):
			want = "a tar.gz or zip archive with llama-server"
		}
		return d.unfit("it is not " + want)
	}
	d.target.Custom = messages.TargetCustom{
		Kind: messages.ArtifactKind(kind), Version: time.Now().UTC().Format(time.DateOnly), URLs: d.urls, Origins: d.origins,
	}
	if kind == string(messages.KindModel) {
		err = d.describeModel()
	} else {
		err = d.describeRuntime(ctx)
	}
	return err
}

// unfit is the failure for a file that cannot be served.
func (d *addition) unfit(why string) error {
	return &failure{code: "unfit", message: "cannot add " + filepath.Base(d.shown()) + ": " + oneLine(why),
		hint: "models are GGUF files; runtimes are the release archives of llama.cpp for this system, as they were downloaded", exit: exitFailed}
}

// kindOf reads the kind from the first bytes; empty: neither.
func kindOf(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", &failure{code: "no_file", message: fmt.Sprintf("the file cannot be read: %v", err), exit: exitFailed}
	}
	defer f.Close()
	magic := make([]byte, 4)
	n, _ := f.Read(magic)
	switch text := string(magic[:n]); {
	case text == "GGUF":
		return string(messages.KindModel), nil
	case strings.HasPrefix(text, "\x1f\x8b"), strings.HasPrefix(text, "PK"):
		return string(messages.KindRuntime), nil
	}
	return "", nil
}

func readHeader(path string) (gguf.Header, error) {
	file, err := os.Open(path)
	if err != nil {
		return gguf.Header{}, err
	}
	defer file.Close()
	return gguf.Read(file)
}

func (d *addition) describeModel() error {
	h, err := readHeader(d.file)
	if err != nil {
		return d.unfit(err.Error())
	}
	part, parts := h.Part()
	switch {
	case h.Architecture() == "clip":
		return d.unfit("it is the projector of a multimodal model, not a model")
	case parts > 0:
		if err := d.findParts(part, parts); err != nil {
			return err
		}
	case h.Empty():
		return d.unfit("it holds no tensor")
	}
	d.target.Custom.Embedding = h.Embedding()
	return nil
}

func (d *addition) describeRuntime(ctx context.Context) error {
	d.app.say("Reading %s …", filepath.Base(d.shown()))
	listed, err := archive.List(ctx, d.file)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return d.unfit(err.Error())
	}
	c := &d.target.Custom
	c.Platform, c.Format, c.Files = supervisor.Platform(), listed.Format, listed.Files
	if c.Executable, err = listed.Program(""); err != nil {
		return d.unfit(err.Error())
	}
	if err := listed.Check(c.Executable); err != nil {
		return d.unfit(err.Error())
	}
	if other := listed.Platform(c.Executable); other != "" && other != c.Platform {
		return d.unfit("its llama-server is for " + other + ", and this machine is " + c.Platform)
	}
	return nil
}

var (
	ownName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	notInOwn = regexp.MustCompile(`[^A-Za-z0-9._-]+`)
)

// checkName chooses the name, and refuses one that something else has.
func (d *addition) checkName() error {
	c := &d.target.Custom
	if c.Name = d.name; c.Name == "" {
		base := gguf.WithoutPart(filepath.Base(strings.SplitN(d.source, "?", 2)[0]))
		for _, suffix := range []string{".gguf", ".tar.gz", ".tgz", ".zip"} {
			base = strings.TrimSuffix(base, suffix)
		}
		c.Name = strings.Trim(notInOwn.ReplaceAllString(base, "-"), "._-")
	}
	if !ownName.MatchString(c.Name) {
		return usageFailure(fmt.Sprintf("%q is not a name: letters, digits, '.', '_' and '-', 128 at most", oneLine(c.Name)), "give one with --name")
	}
	if _, taken := d.have.Default(c.Kind); !taken && !d.settings.Hub.Configured() {
		d.asDefault = true
	}
	for _, kind := range []messages.ArtifactKind{messages.KindModel, messages.KindRuntime} {
		a, ok := d.have.Find(kind, c.Name)
		if kind == c.Kind && ok { // the same file again keeps what was said about it
			c.Version = a.Version
			main, _ := d.have.Default(kind)
			d.asDefault = d.asDefault || main.Name == c.Name
		}
	}
	c.Default = d.asDefault
	return d.checkHub()
}

// checkHub refuses a name that the manifest of the hub has: the hub's would win.
func (d *addition) checkHub() error {
	s, c := d.settings, d.target.Custom
	if !s.Hub.Configured() || s.Manifest.RootFile == "" {
		return nil
	}
	root, err := tuf.ReadRoot(s.Manifest.RootFile)
	if err != nil {
		return err
	}
	client, err := tuf.New(tuf.Config{URL: s.Hub.URL + "/api/v1/manifest/", Root: root, Dir: d.places.Trust, Platform: supervisor.Platform()})
	if err != nil {
		return err
	}
	hub, err := client.Load()
	if err != nil {
		return nil //nolint:nilerr // no manifest is stored, so it has no name
	}
	for _, kind := range []messages.ArtifactKind{messages.KindModel, messages.KindRuntime} {
		if hub.Names(kind, c.Name) {
			return &failure{code: "name_taken", message: "the hub's manifest has another artifact named " + c.Name,
				hint: "give yours another name with --name", exit: exitFailed}
		}
	}
	return nil
}

// bring puts the bytes into the store.
func (d *addition) bring(ctx context.Context) (store.Imported, error) {
	imported, err := d.bringFile(ctx, d.file, d.digest)
	if err != nil {
		return imported, err
	}
	d.target.SHA256, d.target.Size = imported.SHA256, imported.Size
	err = d.bringParts(ctx, &imported)
	return imported, err
}

func (d *addition) bringFile(ctx context.Context, file string, want *[32]byte) (store.Imported, error) {
	c := d.target.Custom
	info, err := os.Stat(file)
	if err != nil {
		return store.Imported{}, err
	}
	progress, finish := d.app.showBytes(c.Name, info.Size())
	defer finish()
	imported, err := store.Import{
		Dir: d.places.Data, File: file, Kind: c.Kind, Want: want, Copy: d.copies, Move: d.fetched, Progress: progress,
		Budget: d.settings.Disk.Budget,
	}.Run(ctx)
	var refused *store.Error
	if !errors.As(err, &refused) {
		if err == nil {
			d.imported = append(d.imported, imported)
		}
		return imported, err
	}
	return imported, d.storeFailure(refused, info.Size())
}

// storeFailure says why the data folder does not take the file, of size bytes where that is known.
func (d *addition) storeFailure(refused *store.Error, size int64) error {
	name := filepath.Base(d.shown())
	f := &failure{code: string(refused.Reason), message: "adding " + name + ": " + strings.TrimPrefix(refused.Error(), "store: "), exit: exitOf(refused.Reason), err: refused}
	switch refused.Reason {
	case messages.ReasonDigestMismatch:
		f.message = name + " does not have the SHA-256 digest that you gave (" + string(refused.Reason) + ")"
		f.hint = "download it again, or check the digest"
	case messages.ReasonNoSpace:
		f.message = "no space: " + roomText(d.places.Data, size) + " (" + string(refused.Reason) + ")"
		f.hint = "free space, or set XDG_DATA_HOME to a folder on the disk of the file, so that it need not be copied"
	case messages.ReasonOverBudget:
		f.hint = nextStep(refused.Reason)
	}
	return f
}

// report says what was added, tells the daemon, and says what to do next.
func (d *addition) report(ctx context.Context, imported store.Imported) error {
	c := d.target.Custom
	reason, err := controlsock.Dial(d.places.ControlSocket).Reload(ctx)
	running := err == nil
	if err != nil && !errors.Is(err, controlsock.ErrNotRunning) {
		d.app.say("The daemon does not know it yet: %v", err)
	} else if running && reason != messages.ReasonOK {
		d.app.say("The daemon cannot use your catalogue: %s", explain(reason))
	}
	if d.app.json {
		return d.app.printJSON(map[string]any{"name": c.Name, "kind": c.Kind, "size": imported.Size, "stored": imported.Way, "default": c.Default})
	}
	how := map[store.Way]string{
		store.WayHere:  "it was here already",
		store.WayClone: "it shares its blocks with your file",
		store.WayLink:  "it is your file under a second name; your file is read-only now",
		store.WayCopy:  "copied",
		store.WayMove:  "downloaded",
	}[imported.Way]
	next := "companion run"
	now, err := d.own.Load()
	_, hasModel := now.Default(messages.KindModel)
	_, hasRuntime := now.Default(messages.KindRuntime)
	switch {
	case err != nil:
		return err
	case !hasRuntime && !d.settings.Hub.Configured():
		next = "companion add a llama.cpp release archive"
	case !hasModel && !d.settings.Hub.Configured():
		next = "companion add a GGUF model"
	case running:
		next = "companion status --watch"
	}
	return print(d.app.out, fmt.Sprintf("Added the %s %s, %s: %s.\nnext: %s\n", c.Kind, c.Name+mark(c.Default, " (default)", ""), bytesText(imported.Size), how, next))
}
