#!/bin/sh
# Simon Willison's llm, in its ordinary way: a model of the OpenAI form in extra-openai-models.yaml.
set -eu
mkdir -p "${TMPDIR:-/tmp}"
LLM_USER_PATH=$(mktemp -d)
export LLM_USER_PATH
trap 'rm -rf "$LLM_USER_PATH"' EXIT
cat >"$LLM_USER_PATH/extra-openai-models.yaml" <<YAML
- model_id: companion
  model_name: $OPENAI_MODEL
  api_base: $OPENAI_BASE_URL
  api_key_name: openai
  supports_schema: true
YAML
"$1" keys set openai --value "$OPENAI_API_KEY"
test -n "$("$1" -m companion -o max_tokens 5 'Hello.')"
test -n "$("$1" -m companion -o max_tokens 5 --no-stream 'Hello.')"
test -n "$("$1" -c -o max_tokens 5 'Go on.')"
"$1" -m companion -o max_tokens 200 --schema 'sweet bool' 'A pear.' | grep sweet >/dev/null
echo ok
