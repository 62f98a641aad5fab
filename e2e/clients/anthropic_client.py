"""The Anthropic library for Python, in its ordinary way: address and token come from the environment."""

import os

import anthropic

client = anthropic.Anthropic(max_retries=0)
model = os.environ["ANTHROPIC_MODEL"]
hello = [{"role": "user", "content": [{"type": "text", "text": "Hello.", "cache_control": {"type": "ephemeral"}}]}]
tool = {"name": "clock", "description": "The time.", "input_schema": {"type": "object", "properties": {}}, "cache_control": {"type": "ephemeral"}}

assert client.models.retrieve(model).id == model
answer = client.messages.create(model=model, max_tokens=5, system="Be brief.", messages=hello, tools=[tool], metadata={"user_id": "u"})
assert answer.content[0].text and answer.stop_reason in ("max_tokens", "end_turn"), answer
history = hello + [{"role": "assistant", "content": answer.content}, {"role": "user", "content": "Go on."}]
assert client.beta.messages.create(model=model, max_tokens=2, messages=history).content
assert client.messages.count_tokens(model=model, messages=history).input_tokens > 5
with client.messages.stream(model=model, max_tokens=5, messages=hello) as stream:
    text = "".join(stream.text_stream)
    assert text == stream.get_final_message().content[0].text, text
for bad, kind in (
    ({"model": "claude-opus-4-5"}, anthropic.NotFoundError),
    ({"container": "c", "betas": ["x"]}, anthropic.BadRequestError),
):
    try:
        client.beta.messages.create(**{"model": model, "max_tokens": 2, "messages": hello, **bad})
        raise SystemExit(f"{bad} was accepted")
    except kind as error:
        assert error.body["type"] == "error" and error.body["error"]["message"], error.body
print("ok")
