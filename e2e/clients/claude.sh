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
# Newer versions call an answer of as many tokens as they allow an error; the exchange is whole then, too.
grep -q '"type":"result"' out && grep -q -e '"is_error":false' -e 'exceeded the 16 output token maximum' out || {
  cat out
  exit 1
}
echo ok
