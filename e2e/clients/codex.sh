#!/bin/sh
# codex, in its ordinary way: one task without a terminal, with a provider of the Responses form.
set -eu
mkdir -p "${TMPDIR:-/tmp}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
CODEX_HOME=$work
export CODEX_HOME
cat >config.toml <<TOML
model = "$OPENAI_MODEL"
model_provider = "companion"
[model_providers.companion]
name = "companion"
base_url = "$OPENAI_BASE_URL"
env_key = "OPENAI_API_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
TOML
# The small model may go on until the context is full; codex then says that the answer is incomplete.
"$1" exec --skip-git-repo-check --json --sandbox read-only 'Hello.' >out 2>&1 </dev/null || true
grep -q -e '"type":"turn.completed"' -e 'Incomplete response returned, reason: max_output_tokens' out || {
  cat out
  exit 1
}
echo ok
