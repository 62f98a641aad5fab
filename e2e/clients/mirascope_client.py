"""Mirascope, in its ordinary way: completions and responses, streams, a format of the answer."""

import os

from mirascope import llm
from pydantic import BaseModel

name = os.environ["OPENAI_MODEL"]


class Fruit(BaseModel):
    sweet: bool


for mode in ("completions", "responses"):
    short = llm.Model(f"openai/{name}:{mode}", max_tokens=5)
    answer = short.call("Hello.")
    assert answer.text(), answer
    assert answer.resume("Go on.").text()
    assert "".join(short.stream("Hello.").text_stream())
    exact = llm.Model(f"openai/{name}:{mode}", max_tokens=200, temperature=0)
    fruit = exact.call("A pear.", format=llm.format(Fruit, mode="strict")).parse()
    assert isinstance(fruit.sweet, bool), fruit
print("ok")
