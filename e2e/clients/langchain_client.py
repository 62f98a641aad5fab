"""LangChain's OpenAI chat model, in its ordinary way: text, streams, structured output, tools and Responses."""

import os

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel

model = os.environ["OPENAI_MODEL"]
chat = ChatOpenAI(model=model, max_tokens=5, max_retries=0, temperature=0)
assert chat.invoke("Hello.").content
assert "".join(piece.content for piece in chat.stream("Hello."))
assert chat.batch(["Hello.", "Good morning."])[1].content
assert OpenAI(model=model, max_tokens=5, max_retries=0).invoke("Once upon a time")


class Fruit(BaseModel):
    """A fruit."""

    sweet: bool


long = ChatOpenAI(model=model, max_tokens=200, max_retries=0, temperature=0)
assert isinstance(long.with_structured_output(Fruit, method="json_schema").invoke("A pear.").sweet, bool)
assert isinstance(long.with_structured_output(Fruit, method="function_calling").invoke("A pear.").sweet, bool)


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


forced = long.bind_tools([add], tool_choice="add").invoke("What is 1 + 2?")
call = forced.tool_calls[0]
assert call["name"] == "add", forced
history = [HumanMessage("What is 1 + 2?"), forced, ToolMessage("3", tool_call_id=call["id"])]
assert chat.bind_tools([add]).invoke(history).response_metadata["finish_reason"]

responses = ChatOpenAI(model=model, max_tokens=5, max_retries=0, use_responses_api=True)
assert responses.invoke("Hello.").content
assert list(responses.stream("Hello."))
print("ok")
