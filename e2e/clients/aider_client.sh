#!/bin/sh
# aider, in its ordinary way: one question about a file, without a repository.
set -eu
mkdir -p "${TMPDIR:-/tmp}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
HOME=$work
export HOME
echo 'print("hello")' >hello.py
cat >.aider.model.metadata.json <<JSON
{"openai/$OPENAI_MODEL": {"max_input_tokens": 4096, "max_output_tokens": 64, "input_cost_per_token": 0, "output_cost_per_token": 0, "litellm_provider": "openai", "mode": "chat"}}
JSON
cat >.aider.model.settings.yml <<YAML
- name: openai/$OPENAI_MODEL
  extra_params:
    max_tokens: 16
YAML
"$1" --model "openai/$OPENAI_MODEL" --weak-model "openai/$OPENAI_MODEL" --no-git --yes-always --no-check-update --no-show-release-notes \
  --analytics-disable --no-auto-commits --no-suggest-shell-commands --chat-mode ask --no-pretty --message 'What does it print?' hello.py >out 2>&1 || {
  cat out
  exit 1
}
grep -qi 'tokens:' out || {
  cat out
  exit 1
}
! grep -q 'Error' out || {
  cat out
  exit 1
}
echo ok
