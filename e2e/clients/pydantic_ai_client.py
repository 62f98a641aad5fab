"""Pydantic AI, in its ordinary way: chat and Responses, streams, a tool that is forced, structured output."""

import asyncio
import os

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.output import NativeOutput, ToolOutput

name = os.environ["OPENAI_MODEL"]


class Sum(BaseModel):
    a: int
    b: int


class Fruit(BaseModel):
    sweet: bool


async def main():
    for model in (OpenAIChatModel(name), OpenAIResponsesModel(name)):
        agent = Agent(model, instructions="Be brief.", model_settings={"max_tokens": 5})
        answer = await agent.run("Hello.")
        assert answer.output, answer
        assert (await agent.run("Go on.", message_history=answer.all_messages())).output
        async with agent.run_stream("Hello.") as stream:
            assert "".join([text async for text in stream.stream_text(delta=True)])
        # An output type becomes a tool that the model must call, and with NativeOutput a schema of the answer.
        exact = {"max_tokens": 200, "temperature": 0}
        fruit = await Agent(model, output_type=NativeOutput(Fruit), model_settings=exact).run("A pear.")
        assert isinstance(fruit.output.sweet, bool), fruit
        adds = ToolOutput(Sum, name="add", description="Adds two numbers.")
        added = await Agent(model, output_type=adds, model_settings=exact).run("What is 1 + 2?")
        assert isinstance(added.output.a, int), added


asyncio.run(main())
print("ok")
