package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"companion/e2e/fixtures/fixture"
)

// Names in the demonstration's manifest.
const (
	modelName   = "smollm2-135m-instruct"
	runtimeName = "llama-server"
	user        = "ada"
)

const (
	daemonDeadline    = 15 * time.Second
	manifestDeadline  = 30 * time.Second
	downloadDeadline  = 5 * time.Minute
	availableDeadline = time.Minute
	signInDeadline    = 30 * time.Second
	answerDeadline    = 2 * time.Minute
)

func (d *demo) fixtures(ctx context.Context) (string, error) {
	runtime, err := fixture.FetchRuntime(ctx, &d.shown)
	if err != nil {
		return "", err
	}
	model, err := fixture.FetchInstructed(ctx, &d.shown)
	if err != nil {
		return "", err
	}
	d.facts.model, d.facts.runtime, d.facts.runtimeVersion = model.File, runtime.File, runtime.Version
	return "llama-server " + runtime.Version + ", SmolLM2 135M Instruct", nil
}

func (d *demo) build(ctx context.Context) (string, error) {
	for _, name := range []string{"companion", "devhub"} {
		if err := d.compile(ctx, name); err != nil {
			return "", err
		}
	}
	return "companion, devhub", nil
}

// compile builds one program, and shows how many packages are compiled: with an empty build cache it takes minutes.
func (d *demo) compile(ctx context.Context, name string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-v", "-o", d.binary(name), "./cmd/"+name)
	cmd.Dir = d.root
	cmd.SysProcAttr = childAttributes()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return fmt.Errorf("building %s: %w", name, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("building %s: %w", name, err)
	}
	var said []string
	lines := bufio.NewScanner(stderr)
	for n := 0; lines.Scan(); {
		said = append(said, lines.Text())
		n++
		d.shown.say("%s: %d packages compiled", name, n)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", name, err, strings.Join(said[max(0, len(said)-15):], "\n"))
	}
	return nil
}

func (d *demo) hub(ctx context.Context) (string, error) {
	out, in := io.Pipe()
	c, err := d.start("devhub", in, "serve", "--dir", filepath.Join(d.dir, "hub"), "--auto-approve", user)
	if err != nil {
		return "", err
	}
	line := make(chan string, 1)
	go func() {
		first, _ := bufio.NewReader(out).ReadString('\n')
		line <- first
		_, _ = io.Copy(io.Discard, out)
	}()
	select {
	case first := <-line:
		var hub struct{ Hub, CAFile string }
		if err := json.Unmarshal([]byte(first), &hub); err != nil {
			return "", fmt.Errorf("reading the hub's first line: %w", err)
		}
		d.facts.caFile = hub.CAFile
		d.watch(c)
		return hub.Hub, nil
	case <-c.ended:
		return "", c.failure()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func (d *demo) publish(ctx context.Context) (string, error) {
	hub := filepath.Join(d.dir, "hub")
	if _, err := d.output(ctx, "devhub", "publish", "--dir", hub, "--kind", "model",
		"--name", modelName, "--version", "1.0.0", "--default", d.facts.model); err != nil {
		return "", err
	}
	_, err := d.output(ctx, "devhub", "publish", "--dir", hub, "--kind", "runtime", "--name", runtimeName,
		"--version", d.facts.runtimeVersion, "--platform", runtime.GOOS+"/"+runtime.GOARCH, "--default", d.facts.runtime)
	return modelName + ", " + runtimeName + " signed into the manifest", err
}

func (d *demo) daemon(ctx context.Context) (string, error) {
	config, err := d.output(ctx, "devhub", "config", "--dir", filepath.Join(d.dir, "hub"),
		"--keychain", "kernel-keyring", "--service", d.keychainService())
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(d.dir, "config", "companion", "config.toml"), config, 0o600); err != nil {
		return "", fmt.Errorf("writing the configuration: %w", err)
	}
	c, err := d.start("companion", nil, "run")
	if err != nil {
		return "", err
	}
	s, err := d.await(ctx, daemonDeadline, c, func(s status) bool { return s.PID != 0 })
	if err != nil {
		return "", err
	}
	d.watch(c)
	return fmt.Sprintf("pid %d, not available yet (%s)", s.PID, s.Reason), nil
}

func (d *demo) manifest(ctx context.Context) (string, error) {
	s, err := d.await(ctx, manifestDeadline, nil, func(s status) bool { return s.Manifest.Version > 0 })
	return fmt.Sprintf("version %d, until %s", s.Manifest.Version, s.Manifest.Expires.Format(time.DateTime)), err
}

func (d *demo) download(ctx context.Context) (string, error) {
	_, err := d.await(ctx, downloadDeadline, nil, func(s status) bool { return s.Facts.Verified })
	return "model and runtime have the sizes and digests that the manifest signs", err
}

// available follows the status stream, so that it shows the time of the change itself.
func (d *demo) available(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, availableDeadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.binary("companion"), "status", "--watch", "--json")
	cmd.Env = append(os.Environ(), d.xdg()...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", fmt.Errorf("watching the status: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("watching the status: %w", err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait()
	}()
	var s status
	for in := json.NewDecoder(out); ; {
		if err := in.Decode(&s); err != nil {
			return "", fmt.Errorf("never available, the last reason is %s (%w)", s.Reason, errors.Join(err, ctx.Err()))
		}
		if s.Available {
			return fmt.Sprintf("%s, runtime pid %d, landlock %d, seccomp %t", s.FrontDoor.BaseURL,
				s.Runtime.PID, s.Runtime.Sandbox.Landlock, s.Runtime.Sandbox.Seccomp), nil
		}
	}
}

func (d *demo) answer(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerDeadline)
	defer cancel()
	const question = "Name three planets."
	out, err := d.companion(ctx, "chat", "--max-tokens", "48", "--temperature", "0", question)
	if err != nil {
		return "", err
	}
	text := strings.Join(strings.Fields(string(out)), " ")
	if text == "" {
		return "", errors.New("the answer is empty")
	}
	return quoted(question) + " → " + quoted(text), nil
}

func (d *demo) enrich(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerDeadline)
	defer cancel()
	note := filepath.Join(d.dir, "notes", "garden.md")
	const text = `---
title: Garden
---
The tomatoes want more sun than the north bed gives them. Move them in May, and ask Ines about the compost.
`
	if err := os.WriteFile(note, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("writing the note: %w", err)
	}
	out, err := d.companion(ctx, "enrich", note)
	if err != nil {
		return "", err
	}
	var enriched struct {
		Summary string
		Tags    []string
	}
	if err := json.Unmarshal(out, &enriched); err != nil {
		return "", fmt.Errorf("reading the enriched note: %w", err)
	}
	if enriched.Summary == "" {
		return "", errors.New("the enriched note has no summary")
	}
	return fmt.Sprintf("summary %s, tags %q", quoted(enriched.Summary), enriched.Tags), nil
}

// quoted shortens a long answer.
func quoted(s string) string {
	const longest = 160
	if r := []rune(s); len(r) > longest {
		s = string(r[:longest]) + "…"
	}
	return "“" + s + "”"
}
