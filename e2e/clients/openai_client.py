"""The OpenAI library for Python, in its ordinary way: address, token and model come from the environment."""

import os
import urllib.request

# No program listens there: a request that goes to the proxy fails.
for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
    os.environ[name] = "http://127.0.0.1:9"

import openai
from pydantic import BaseModel

request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/models", headers={"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]})
with urllib.request.urlopen(request) as answer:
    assert answer.status == 200
client = openai.OpenAI(max_retries=0)
model = os.environ["OPENAI_MODEL"]
hello = [{"role": "user", "content": "Hello."}]

assert client.models.retrieve(model).id == model
assert [m.id for m in client.models.list()] == [model]

answer = client.chat.completions.create(model=model, messages=hello, max_tokens=32000, stop=["e", "a", "i", "o", " ", ".", "\n"], seed=-1)
assert answer.choices[0].message.role == "assistant", answer
pieces = list(client.chat.completions.create(model=model, messages=hello, max_completion_tokens=5, stream=True))
assert pieces[-1].choices[0].finish_reason == "length", pieces[-1]


class Fruit(BaseModel):
    color: bool


parsed = client.chat.completions.parse(model=model, messages=hello, response_format=Fruit, max_tokens=400, temperature=0)
history = hello + [parsed.choices[0].message.to_dict(), {"role": "user", "content": "Go on."}]
assert client.chat.completions.create(model=model, messages=history, max_tokens=2).choices

response = client.responses.create(model=model, input="Hello.", max_output_tokens=5)
assert response.output_text and response.usage.output_tokens_details.reasoning_tokens == 0, response
again = client.responses.create(model=model, input=[*response.output, {"role": "user", "content": "Go on."}], max_output_tokens=2)
assert again.status == "incomplete" and again.incomplete_details.reason == "max_output_tokens", again
with client.responses.stream(model=model, input="Hello.", max_output_tokens=200, temperature=0, text_format=Fruit) as stream:
    events = [event.type for event in stream]
    assert stream.get_final_response().output_text, events
assert events[0] == "response.created" and events[-1] == "response.completed", events

for bad, text in (
    ({"previous_response_id": "resp_1"}, "whole conversation"),
    ({"tools": [{"type": "file_search", "vector_store_ids": ["v"]}]}, "type"),
):
    try:
        client.responses.create(model=model, input="Hello.", **bad)
        raise SystemExit(f"{bad} was accepted")
    except openai.BadRequestError as error:
        assert text in str(error), error
try:
    openai.OpenAI(base_url=os.environ["OPENAI_BASE_URL"] + "/v1", max_retries=0).models.list()
    raise SystemExit("a wrong base URL was accepted")
except openai.NotFoundError as error:
    assert os.environ["OPENAI_BASE_URL"] in str(error), error
print("ok")
