"""litellm, in its ordinary way: providers `openai` and `anthropic` with address and token from the environment."""

import os

import litellm

model = os.environ["OPENAI_MODEL"]
hello = [{"role": "user", "content": "Hello."}]
litellm.num_retries = 0

for provider in ("openai", "anthropic"):
    more = {}
    if provider == "anthropic":
        more = {"api_key": os.environ["ANTHROPIC_AUTH_TOKEN"], "api_base": os.environ["ANTHROPIC_BASE_URL"]}
    answer = litellm.completion(model=f"{provider}/{model}", messages=hello, max_tokens=5, **more)
    assert answer.choices[0].message.content, answer
    pieces = list(litellm.completion(model=f"{provider}/{model}", messages=hello, max_tokens=5, stream=True, **more))
    assert pieces and pieces[-1].choices[0].finish_reason == "length", pieces[-1]

# Prompt caching of another provider, and a history with what litellm adds to an answer.
cached = [{"role": "user", "content": [{"type": "text", "text": "Hello.", "cache_control": {"type": "ephemeral"}}]}]
answer = litellm.completion(model=f"openai/{model}", messages=cached, max_tokens=5)
history = cached + [answer.choices[0].message.model_dump(), {"role": "user", "content": "Go on."}]
assert litellm.completion(model=f"openai/{model}", messages=history, max_tokens=2).choices

# The runtime lets a forced call begin after other text; the small model begins at once for this question.
tools = [{"type": "function", "function": {"name": "add", "description": "Adds two numbers.", "parameters": {
    "type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}}}]
question = [{"role": "user", "content": "What is 1 + 2?"}]
call = litellm.completion(model=f"openai/{model}", messages=question, tools=tools, max_tokens=200, temperature=0,
                          tool_choice={"type": "function", "function": {"name": "add"}})
assert call.choices[0].message.tool_calls[0].function.name == "add", call

response = litellm.responses(model=f"openai/{model}", input="Hello.", max_output_tokens=5)
assert response.output, response
try:
    litellm.completion(model="openai/gpt-4o", messages=hello, max_tokens=2)
    raise SystemExit("another model was accepted")
except litellm.NotFoundError as error:
    assert model in str(error), error
print("ok")
