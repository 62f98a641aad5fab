#!/bin/sh
# Claude Code, in its ordinary way: one question, printed. The small model answers anything; only the exchange counts.
set -eu
mkdir -p "${TMPDIR:-/tmp}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
HOME=$work
CLAUDE_CONFIG_DIR=$work
CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1
DISABLE_AUTOUPDATER=1
CLAUDE_CODE_MAX_OUTPUT_TOKENS=16
export HOME CLAUDE_CONFIG_DIR CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC DISABLE_AUTOUPDATER CLAUDE_CODE_MAX_OUTPUT_TOKENS
echo 'Hello.' | "$1" --print --output-format json --max-turns 1 --system-prompt 'Be brief.' >out 2>&1 || true
grep -q '"type":"result"' out && grep -q '"is_error":false' out || {
  cat out
  exit 1
}
echo ok
