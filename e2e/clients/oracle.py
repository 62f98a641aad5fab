"""What the daemon answers, against the published types of both families: each answer and each event of a stream must have every
field that the official library declares, with a value of its type. The libraries themselves do not check this."""

import json
import os
import typing

import anthropic.types
import httpx
import openai.types
import openai.types.chat
import openai.types.responses
import pydantic

model = os.environ["OPENAI_MODEL"]
client = httpx.Client(headers={"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}, timeout=240)
v1 = os.environ["OPENAI_BASE_URL"]
faults = []


def of_type(declared, kind):
    """The member of a union of events whose type is kind."""
    if typing.get_origin(declared) is typing.Annotated:
        declared = typing.get_args(declared)[0]
    if typing.get_origin(declared) is not typing.Union:
        return declared
    return next((m for m in typing.get_args(declared) if kind in typing.get_args(m.model_fields["type"].annotation)), None)


def check(what, declared, raw):
    event = of_type(declared, json.loads(raw).get("type"))
    if event is None:
        faults.append(f"{what}: no type of the library: {raw[:300]}")
        return
    try:
        pydantic.TypeAdapter(event).validate_json(raw)
    except pydantic.ValidationError as error:
        for fault in error.errors():
            faults.append(f"{what}: {fault['loc']}: {fault['msg']}: {raw[:300]}")


def whole(what, declared, path, body):
    answer = client.post(v1 + path, json=body)
    assert answer.status_code == 200, (what, answer.text)
    check(what, declared, answer.text)
    return answer.json()


def events(what, declared, path, body):
    """The events of a stream, each checked."""
    found = []
    with client.stream("POST", v1 + path, json={**body, "stream": True}) as stream:
        assert stream.status_code == 200, (what, stream.read())
        for line in stream.iter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            raw = line.removeprefix("data: ")
            found.append(json.loads(raw))
            if declared is openai.types.Completion:  # the library declares no null, which OpenAI's own events have until the last
                raw = raw.replace('"finish_reason":null', '"finish_reason":"stop"')
            check(f"{what}, event {len(found)} {found[-1].get('type', '')}", declared, raw)
    assert len(found) > 2, (what, found)
    return found


hello = [{"role": "user", "content": "Hello."}]
sum_schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"], "additionalProperties": False}
question = [{"role": "user", "content": "What is 1 + 2?"}]
function = {"name": "add", "description": "Adds two numbers.", "parameters": sum_schema}
chat = openai.types.chat
responses = openai.types.responses
Response, ResponseEvent = responses.Response, responses.ResponseStreamEvent
MessageEvent = anthropic.types.RawMessageStreamEvent

check("models", openai.types.Model, json.dumps(client.get(v1 + "/models").json()["data"][0]))
check("a model", openai.types.Model, client.get(f"{v1}/models/{model}").text)
check("a model, Anthropic", anthropic.types.ModelInfo, client.get(f"{v1}/models/{model}").text)

# A text, and a call that is forced, in each format, whole and as a stream.
for name, body in {
    "chat": {"messages": hello, "max_tokens": 5, "logprobs": True, "top_logprobs": 2, "stream_options": {"include_usage": True}},
    "chat, a call": {"messages": question, "max_tokens": 64, "temperature": 0, "tools": [{"type": "function", "function": function}], "tool_choice": {"type": "function", "function": {"name": "add"}}},
}.items():
    without = {k: v for k, v in body.items() if k != "stream_options"}
    whole(name, chat.ChatCompletion, "/chat/completions", without)
    chunks = events(name, chat.ChatCompletionChunk, "/chat/completions", body)
    if "stream_options" in body and not any(c.get("usage") for c in chunks):
        faults.append("chat: no event has the usage")
whole("completions", openai.types.Completion, "/completions", {"prompt": "Once", "max_tokens": 5})
events("completions", openai.types.Completion, "/completions", {"prompt": "Once", "max_tokens": 5})

for name, body in {
    "responses": {"input": hello, "max_output_tokens": 5},
    "responses, a schema": {"input": hello, "max_output_tokens": 200, "temperature": 0, "text": {"format": {"type": "json_schema", "name": "n", "schema": sum_schema}}},
    "responses, a call": {"input": question, "max_output_tokens": 64, "temperature": 0, "tools": [{"type": "function", "strict": True, **function}], "tool_choice": {"type": "function", "name": "add"}},
}.items():
    whole(name, Response, "/responses", body)
    found = events(name, ResponseEvent, "/responses", body)
    if [e["sequence_number"] for e in found] != list(range(len(found))):
        faults.append(f"{name}: got the sequence {[e['sequence_number'] for e in found]}")
    # The last event has what the deltas add up to.
    parts = [c for item in found[-1]["response"]["output"] for c in item.get("content", [])]
    told = "".join(e["delta"] for e in found if e["type"] == "response.output_text.delta")
    if told != "".join(c["text"] for c in parts):
        faults.append(f"{name}: the deltas are {told!r}, and the answer is {parts}")
    given = "".join(e["delta"] for e in found if e["type"] == "response.function_call_arguments.delta")
    calls = [item["arguments"] for item in found[-1]["response"]["output"] if item["type"] == "function_call"]
    if given != "".join(calls):
        faults.append(f"{name}: the deltas are {given!r}, and the calls are {calls}")

for name, body in {
    "messages": {"messages": hello, "max_tokens": 5},
    "messages, a call": {"messages": question, "max_tokens": 64, "temperature": 0, "tools": [{"name": "add", "description": "Adds two numbers.", "input_schema": sum_schema}], "tool_choice": {"type": "tool", "name": "add"}},
}.items():
    body["model"] = model
    whole(name, anthropic.types.Message, "/messages", body)
    found = events(name, MessageEvent, "/messages", body)
    kinds = [e["type"] for e in found]
    if kinds[0] != "message_start" or kinds[-1] != "message_stop" or kinds.count("content_block_start") != kinds.count("content_block_stop"):
        faults.append(f"{name}: got the events {kinds}")
whole("count_tokens", anthropic.types.MessageTokensCount, "/messages/count_tokens", {"messages": hello, "model": model})

for path, declared in {"/chat/completions": None, "/responses": None, "/messages": anthropic.types.ErrorResponse}.items():
    answer = client.post(v1 + path, json={"id_slot": 1})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    if declared:
        check("an error of " + path, declared, answer.text)
    elif not all(isinstance(error.get(k), typing.get_args(str | None)) for k in ("message", "type", "param", "code")):
        faults.append(f"an error of {path}: {answer.text}")

assert not faults, "\n".join(faults[:20])
print("ok")
