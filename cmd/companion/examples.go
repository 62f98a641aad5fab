package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// examples are the uses of each command that its help and its man page show. A test parses every line.
var examples = map[string]string{
	"companion":                   "companion",
	"companion run":               "companion run\ncompanion run --set log.level=debug",
	"companion status":            "companion status\ncompanion status --watch\ncompanion status --wait --timeout 2m",
	"companion login":             "companion login\ncompanion login --no-browser",
	"companion logout":            "companion logout",
	"companion whoami":            "companion whoami --json",
	"companion models":            "companion models",
	"companion pull":              "companion pull\ncompanion pull gemma-3-270m",
	"companion add":               "companion add ./my-model.gguf",
	"companion remove":            "companion remove my-model",
	"companion use":               "companion use gemma-3-270m\ncompanion use --default",
	"companion prune":             "companion prune --dry-run",
	"companion start":             "companion start --wait",
	"companion stop":              "companion stop",
	"companion restart":           "companion restart --wait",
	"companion env":               "eval \"$(companion env)\"\ncompanion env --shell fish | source",
	"companion exec":              "companion exec -- python script.py\ncompanion exec --only openai -- sh -c 'echo $OPENAI_BASE_URL'",
	"companion chat":              "companion chat\ncompanion chat \"Name three planets.\"\ncompanion chat \"Summarize this.\" < notes.txt\ncompanion chat --attach main.go \"Explain this file.\"",
	"companion enrich":            "companion enrich notes/ --output enriched/\ncompanion enrich --dry-run notes/*.md",
	"companion enrich verify":     "companion enrich verify enriched/notes.jsonl",
	"companion lane":              "companion lane",
	"companion logs":              "companion logs --since 10m --level warn\ncompanion logs --follow --actor runtime\ncompanion logs --json | jq .event",
	"companion metrics":           "companion metrics\ncompanion metrics --format prometheus",
	"companion doctor":            "companion doctor\ncompanion doctor keychain hub\ncompanion doctor --bundle report.json",
	"companion service":           "companion service install\ncompanion service status",
	"companion service install":   "companion service install\ncompanion service install --linger",
	"companion service uninstall": "companion service uninstall",
	"companion service status":    "companion service status",
	"companion service logs":      "companion service logs",
	"companion token":             "companion token add editor\ncompanion token list",
	"companion token add":         "companion token add editor",
	"companion token list":        "companion token list",
	"companion token revoke":      "companion token revoke editor",
	"companion config":            "companion config init\ncompanion config check",
	"companion config init":       "companion config init",
	"companion config check":      "companion config check",
	"companion config show":       "companion config show\nCOMPANION_LOG_LEVEL=debug companion config show",
	"companion config path":       "companion config path",
	"companion version":           "companion version --json",
	"companion completion":        "companion completion bash > ~/.local/share/bash-completion/completions/companion",
	"companion help":              "companion help enrich",
	"companion man":               "companion man ~/.local/share/man/man1",
}

// example indents the examples of a command for its help.
func example(cmd *cobra.Command) string {
	text := examples[cmd.CommandPath()]
	if text == "" {
		return ""
	}
	return "  " + strings.ReplaceAll(text, "\n", "\n  ")
}
